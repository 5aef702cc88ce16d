"""Losses: missing labels, teachers, conflicting gradients, calibration."""

import pytest
import torch
import torch.nn.functional as F

from spatialnet_training.config import Distillation
from spatialnet_training.distillation.teachers import Taught, distillation_loss
from spatialnet_training.losses.multitask import UNLABELLED, counted, head_loss, project_conflicts, relation_loss, soft_loss
from spatialnet_training.losses.temperature_scaling import abstention, fit_temperature


def test_images_without_a_label_do_not_count() -> None:
    logits = torch.randn(4, 3)
    target = torch.tensor([0, UNLABELLED, 2, UNLABELLED])
    expected = F.cross_entropy(logits[[0, 2]], target[[0, 2]], reduction="sum") / 4
    assert head_loss(logits, target, 0.0) == pytest.approx(float(expected))
    nothing = torch.full((4,), UNLABELLED)
    assert head_loss(logits, nothing, 0.1) == 0
    rows = torch.tensor([[1.0, 0, 1], [UNLABELLED] * 3])
    changed = torch.cat([logits[:1], logits[1:2] + 99])
    assert head_loss(logits[:2], rows, 0.0) == pytest.approx(float(head_loss(changed, rows, 0.0)))
    open_in_part = torch.tensor([[1.0, UNLABELLED, 0.0]])
    known = F.binary_cross_entropy_with_logits(logits[:1, [0, 2]], open_in_part[:, [0, 2]], reduction="sum") / 3
    assert head_loss(logits[:1], open_in_part, 0.0) == pytest.approx(float(known))


def test_a_quantity_is_learnt_as_a_share_of_its_range() -> None:
    logit = torch.zeros(1, 1, requires_grad=True)
    optimiser = torch.optim.SGD([logit], lr=5.0)
    for _ in range(200):
        optimiser.zero_grad()
        head_loss(logit, torch.tensor([[0.3]]), 0.0).backward()
        optimiser.step()
    assert float(logit.detach().sigmoid()) == pytest.approx(0.3, abs=1e-3)


def test_missing_counts_are_replaced_by_expected_counts() -> None:
    said = torch.tensor([[0.0, 99.0, -99.0, 0.0]]).repeat(3, 1).requires_grad_()
    known = torch.tensor([[1.0, 0, 1, 0], [UNLABELLED, 0, UNLABELLED, 1], [UNLABELLED] * 4])
    targets = {"kinds": torch.tensor([[0.9], [UNLABELLED], [UNLABELLED]]), "objects": known}
    filled = counted({"kinds": "objects"}, {"objects": said, "kinds": torch.zeros(3, 1)}, targets)
    torch.testing.assert_close(filled["kinds"], torch.tensor([[0.9], [1.5 / 4], [2 / 4]]))
    assert not filled["kinds"].requires_grad
    assert filled["objects"] is known
    assert counted({}, {"objects": said}, targets) == targets


@pytest.mark.parametrize("single", [True, False])
def test_a_student_that_agrees_with_its_teacher_has_no_loss(single: bool) -> None:
    logits = torch.randn(5, 4)
    soft = (logits / 2).softmax(1) if single else (logits / 2).sigmoid()
    weight = torch.ones(5)
    assert float(soft_loss(logits, soft, single, 2.0, weight)) == pytest.approx(0, abs=1e-6)
    assert float(soft_loss(-logits, soft, single, 2.0, weight)) > 0.1
    assert float(soft_loss(-logits, soft, single, 2.0, torch.zeros(5))) == 0


def test_relations_do_not_depend_on_width_scale_or_rotation() -> None:
    teacher = torch.randn(6, 2, 8)
    rotation = torch.linalg.qr(torch.randn(16, 16))[0]
    student = (3 * teacher.flatten(1) @ rotation).view(6, 4, 4)
    known = torch.ones(6, dtype=torch.bool)
    assert float(relation_loss(student, teacher, known)) == pytest.approx(0, abs=1e-6)
    assert float(relation_loss(torch.randn(6, 1, 3), teacher, known)) > 0.01


def test_masked_images_do_not_change_the_relation_loss() -> None:
    teacher, student = torch.randn(6, 2, 8), torch.randn(6, 1, 3, requires_grad=True)
    known = torch.tensor([True, False, True, True, False, True])
    loss = relation_loss(student, teacher, known)
    alone = relation_loss(student[known], teacher[known], torch.ones(4, dtype=torch.bool))
    assert loss.item() == pytest.approx(alone.item())
    loss.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert (student.grad[~known] == 0).all()


def test_a_head_counts_less_on_images_of_other_data_sets_and_in_full_on_unlabelled_ones() -> None:
    settings = Distillation(teachers=("x",), temperature=1.0, other_heads_weight=0.25)
    targets = {"a": torch.tensor([0, UNLABELLED, UNLABELLED]), "b": torch.tensor([UNLABELLED, 1, UNLABELLED])}
    logits = {"a": torch.tensor([[2.0, 0.0]]).repeat(3, 1), "b": torch.zeros(3, 2)}
    taught = Taught({"a": torch.tensor([[0.5, 0.5]]).repeat(3, 1)}, {"a": torch.ones(3, dtype=torch.bool)}, [])
    loss = distillation_loss(
        settings, torch.zeros(3, 1, 1), logits, taught, targets, {"a": True, "b": True}, {"a": 1.0, "b": 1.0}
    )
    one = F.kl_div(F.log_softmax(logits["a"][:1], 1), taught.probabilities["a"][:1], reduction="sum")
    assert float(loss) == pytest.approx(float(one) * (1 + 0.25 + 1) / 3)


def test_conflicting_gradients_lose_their_opposing_components() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    combined = project_conflicts([a, b], [[0, 1], [1, 0]])
    # a without its part along -b is (0.5, 0.5); b without its part along -a is (0, 1)
    torch.testing.assert_close(combined, torch.tensor([0.5, 1.5]))
    assert torch.dot(combined, a) >= 0
    assert torch.dot(combined, b) >= 0
    agreeing = [torch.tensor([1.0, 0.5]), torch.tensor([0.2, 1.0])]
    torch.testing.assert_close(project_conflicts(agreeing, [[0, 1], [1, 0]]), agreeing[0] + agreeing[1])


def test_temperature_scaling_reduces_overconfidence() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4000, 5)
    target = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(logits, target) == pytest.approx(1, abs=0.1)
    assert fit_temperature(logits * 4, target) == pytest.approx(4, abs=0.4)
    rows = (torch.rand(4000, 5) < torch.sigmoid(logits)).float()
    assert fit_temperature(logits * 0.5, rows) == pytest.approx(0.5, abs=0.05)
    assert fit_temperature(logits, torch.full((4000,), UNLABELLED)) == 1.0


def test_few_correct_images_do_not_give_certainty() -> None:
    """Without the added wrong image, the temperature goes to its minimum, and every prediction has a probability of 1."""
    target = torch.arange(8) % 2
    logits = 3.0 * torch.nn.functional.one_hot(target, 2)
    assert fit_temperature(logits, target, cautious=False) < 0.2
    confidence = (logits / fit_temperature(logits, target)).softmax(dim=1).amax(dim=1)
    assert confidence == pytest.approx(torch.full((8,), 1 - 0.5 / 9 / 2), abs=0.01)  # half of a doubt is right
    rows = torch.nn.functional.one_hot(target, 2).float()
    labels = (logits - 1.5) / fit_temperature(logits - 1.5, rows)
    assert labels.sigmoid().amax(dim=1) == pytest.approx(torch.full((8,), 1 - 0.5 / 9), abs=0.01)


def test_the_abstention_threshold_is_the_lowest_sufficient_one() -> None:
    confidence = torch.linspace(0.5, 1, 1000)
    probabilities = torch.stack([confidence, 1 - confidence], 1)
    target = (torch.arange(1000) < 200).long()  # wrong wherever the confidence is below 0.6
    assert abstention(probabilities, target) == pytest.approx(0.58, abs=0.021)
    assert abstention(probabilities, torch.zeros(1000, dtype=torch.long)) == 0.5
