"""Which teacher teaches on which view, and with which weight."""

from __future__ import annotations

import pytest
import torch
from numpy.random import default_rng
from torch import Tensor, nn

from spatialnet_edge.core.errors import UsageError
from spatialnet_training.config import Distillation, TaughtBy
from spatialnet_training.data.augmentation import Mix
from spatialnet_training.data.dataloader import Batch
from spatialnet_training.distillation.teachers import Taught, Teacher, as_teacher, distillation_loss, known_sets, teach
from spatialnet_training.losses.multitask import UNLABELLED

SETS = ("eurosat", "ucmerced", "rsscn7")


class Says(nn.Module):
    """A teacher with constant outputs."""

    def __init__(self, **logits: list[float]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor, present: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        answers = {head: torch.tensor(values).expand(len(x), -1) for head, values in self.logits.items()}
        return x.flatten(1)[:, None, :4], answers


def batch(data_set: list[int], mix: Mix | None = None) -> Batch:
    targets = {"a": torch.full((len(data_set),), UNLABELLED), "b": torch.full((len(data_set), 1), float(UNLABELLED))}
    return Batch(torch.randn(len(data_set), 3, 2, 2), {}, None, targets, torch.tensor(data_set), mix)


def taught(teachers: list[Teacher], views: Batch) -> Taught:
    return teach(teachers, views, {"a": True, "b": False}, temperature=2.0, rng=default_rng(0))


def test_a_teacher_does_not_teach_on_other_data_sets() -> None:
    views = batch([0, 1, 2, UNLABELLED])
    said = taught([Teacher(Says(a=[4.0, 0.0]), None, datasets=(1,))], views)
    assert said.known["a"].tolist() == [False, True, False, True]  # it teaches on unlabelled images
    torch.testing.assert_close(said.probabilities["a"][1], torch.tensor([2.0, 0.0]).softmax(0))
    assert said.probabilities["a"][0].tolist() == [0, 0]
    assert set(said.probabilities) == {"a"}  # it has no head 'b'


def test_a_teacher_can_be_excluded_from_unlabelled_images() -> None:
    views = batch([0, 1, 2, UNLABELLED])
    one_set = taught([Teacher(Says(a=[4.0, 0.0]), None, datasets=(1,), use_on_unlabelled=False)], views)
    assert one_set.known["a"].tolist() == [False, True, False, False]
    every_set = taught([Teacher(Says(a=[4.0, 0.0]), None, use_on_unlabelled=False)], views)
    assert every_set.known["a"].tolist() == [True, True, True, False]


def test_a_teacher_teaches_on_a_mixed_view_only_if_both_images_are_its_own() -> None:
    views = batch([1, 1, 0, 1, 0, 0], Mix(0.7))
    said = taught([Teacher(Says(a=[1.0, 0.0]), None, datasets=(1, 2))], views)
    assert said.known["a"].tolist() == [True, True, False, False, False, False]


def test_teachers_are_averaged_with_their_weights() -> None:
    everywhere = Teacher(Says(a=[0.0, 0.0], b=[0.0]), None)
    one_set = Teacher(Says(a=[20.0, -20.0]), None, datasets=(2,), weight=3.0)
    said = taught([everywhere, one_set], batch([0, 2]))
    torch.testing.assert_close(said.probabilities["a"], torch.tensor([[0.5, 0.5], [0.875, 0.125]]))
    assert said.known["b"].all()


def test_partially_labelled_heads_are_not_distilled() -> None:
    """Its outputs for unknown labels are arbitrary, because it was never trained on them."""
    views = batch([0, 0, 0, 0], Mix(0.6))
    views.targets["b"] = torch.tensor([[1.0, UNLABELLED], [1.0, 0.0], [UNLABELLED, UNLABELLED], [0.0, 1.0]])
    said = taught([Teacher(Says(a=[1.0, 0.0], b=[1.0, 0.0]), None)], views)
    assert said.known["a"].all()
    assert said.known["b"].tolist() == [False, False, True, True]


def test_views_without_a_teacher_have_no_loss() -> None:
    settings = Distillation(teachers=("x",), relations=5.0)
    views = batch([0, 0, 1, 1])
    pooled = torch.randn(4, 2, 8, requires_grad=True)
    logits = torch.randn(4, 2, requires_grad=True)
    said = taught([Teacher(Says(a=[3.0, 0.0]), None, datasets=(1,))], views)
    loss = distillation_loss(settings, pooled, {"a": logits}, said, views.targets, {"a": True}, {"a": 1.0})
    loss.backward()
    for gradient in (pooled.grad, logits.grad):
        assert gradient is not None
        assert gradient[:2].abs().sum() == 0
        assert gradient[2:].abs().sum() > 0
    nobody = taught([Teacher(Says(a=[3.0, 0.0]), None, datasets=(2,))], views)
    assert distillation_loss(settings, pooled, {"a": logits}, nobody, views.targets, {"a": True}, {"a": 1.0}) == 0


class Corner(nn.Module):
    """The logit of its first class is the brightness of the upper left pixel, which changes with the orientation."""

    def forward(self, x: Tensor, present: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        bright = x[:, 0, 0, 0]
        return x.flatten(1)[:, None, :4], {"a": torch.stack([bright, torch.zeros_like(bright)], dim=1)}


def test_random_orientations_average_to_the_mean_over_all_eight() -> None:
    views = batch([0, 1])
    rng = default_rng(7)
    heads = {"a": True}
    teacher = as_teacher(Corner(), None, TaughtBy("t.pt", random_orientation=True), SETS)
    said = torch.stack([teach([teacher], views, heads, 2.0, rng).probabilities["a"] for _ in range(800)])
    assert len(said.unique(dim=0)) == 4  # the eight put each of the four corners there twice
    corners = views.x[:, 0].flatten(1)
    mean = torch.sigmoid(corners / 2).mean(1)
    torch.testing.assert_close(said.mean(0)[:, 0], mean, atol=0.02, rtol=0)
    as_it_is = teach([Teacher(Corner(), None)], views, heads, 2.0, rng).probabilities["a"]
    torch.testing.assert_close(as_it_is[:, 0], torch.sigmoid(corners[:, 0] / 2))


def test_a_data_set_that_the_run_does_not_have_is_refused() -> None:
    assert known_sets(TaughtBy("t.pt"), SETS) is None
    assert known_sets(TaughtBy("t.pt", datasets=("rsscn7", "eurosat")), SETS) == (2, 0)
    with pytest.raises(UsageError, match=r"t.pt: its data set 'ucm' is not one of .* data sets: eurosat, ucmerced, rsscn7"):
        known_sets(TaughtBy("t.pt", datasets=("ucm",)), SETS)
