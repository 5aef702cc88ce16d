"""The choice of a variant, and the reasons for rejecting others."""

from dataclasses import replace

import pytest

from spatialnet_edge.core.errors import BuildError
from spatialnet_optimize.evaluation.gates import GOLDEN_TOLERANCE, Measured, decide, loss_points, refusal

FP32 = Measured("fp32", b"x" * 100, {"land_use (a)": 0.90, "objects (b)": 0.80}, 1.0, 0.0, 10.0, 12.0)
INT8 = replace(FP32, name="int8-dynamic", content=b"x" * 30, agreement=0.99, golden_difference=0.01, p50_ms=6.0)


def verdicts(*candidates: Measured, budget: float = 0.5) -> dict[str, str]:
    return {record.name: record.verdict for record in decide(candidates, budget).records}


def test_the_faster_candidate_within_the_budget_wins() -> None:
    decision = decide([FP32, INT8], 0.5)
    assert decision.winner is INT8
    assert "fp32 slower: 1.67 times" in decision.reason
    assert [record.chosen for record in decision.records] == [False, True]


def test_one_head_over_the_budget_is_enough_to_fail() -> None:
    worse = replace(INT8, accuracy={"land_use (a)": 0.91, "objects (b)": 0.79})
    assert loss_points(worse, FP32) == pytest.approx(1.0)
    assert decide([FP32, worse], 0.5).winner is FP32
    assert "loses 1.00 points in objects (b); the budget is 0.50" in verdicts(FP32, worse)["int8-dynamic"]
    assert decide([FP32, worse], 1.5).winner is worse


def test_one_image_of_a_small_set_may_change_and_two_may_not() -> None:
    """One of 40 images is 2.5 points, so a budget of half a point cannot be measured."""
    small = replace(FP32, judged_images={"land_use (a)": 40, "objects (b)": 1000})
    one, two = (replace(INT8, accuracy={**FP32.accuracy, "land_use (a)": 0.90 - wrong / 40}) for wrong in (1, 2))
    assert decide([small, one], 0.5).winner is one
    assert "loses 5.00 points in land_use (a); one of its 40 images may change" in verdicts(small, two)["int8-dynamic"]
    large = replace(small, judged_images={"land_use (a)": 400, "objects (b)": 1000})
    assert "loses 2.50 points in land_use (a); the budget is 0.50" in verdicts(large, one)["int8-dynamic"]


def test_a_variant_with_other_golden_outputs_fails_even_if_accurate() -> None:
    strange = replace(INT8, golden_difference=GOLDEN_TOLERANCE["int8-dynamic"] * 2)
    assert "golden" in verdicts(FP32, strange)["int8-dynamic"]


def test_a_candidate_that_changes_many_answers_fails_even_if_those_with_labels_stay_right() -> None:
    """Labels are few, and some heads have none here."""
    fickle = replace(INT8, agreement=0.942)
    assert decide([FP32, fickle], 0.5).winner is FP32
    assert "94.2% of all heads' predictions are unchanged, 97% are required" in verdicts(FP32, fickle)["int8-dynamic"]
    assert decide([FP32, replace(INT8, agreement=0.97)], 0.5).winner.name == "int8-dynamic"


@pytest.mark.parametrize("p50", [9.8, 10.0, 14.0])
def test_no_gain_beyond_the_noise_keeps_fp32(p50: float) -> None:
    decision = decide([FP32, replace(INT8, p50_ms=p50)], 0.5)
    assert decision.winner is FP32
    assert "not faster" in decision.reason


def test_without_the_reference_nothing_is_decided() -> None:
    with pytest.raises(BuildError, match="FP32 reference"):
        decide([INT8], 0.5)


def test_nothing_is_built_if_the_reference_fails_its_golden_test() -> None:
    for difference in (0.01, float("nan")):
        with pytest.raises(BuildError, match="differs from its golden frames"):
            decide([replace(FP32, golden_difference=difference), INT8], 0.5)


def test_a_loss_of_exactly_the_budget_passes() -> None:
    reference = replace(FP32, accuracy={"a": 194 / 200})
    assert refusal(replace(INT8, accuracy={"a": 193 / 200}), reference, 0.5) is None
    assert "loses 1.00" in refusal(replace(INT8, accuracy={"a": 192 / 200}), reference, 0.5)


def test_an_unevaluated_variant_is_not_chosen() -> None:
    unjudged = replace(FP32, accuracy={})
    assert decide([unjudged, replace(INT8, accuracy={})], 0.5).winner is unjudged
    assert "not evaluated: no labelled image matches" in verdicts(unjudged, replace(INT8, accuracy={}))["int8-dynamic"]


def test_a_variant_that_passed_on_the_host_needs_no_labelled_images_on_the_device() -> None:
    unjudged, prepared = replace(FP32, accuracy={}), replace(INT8, accuracy={})
    assert decide([unjudged, prepared], 0.5, passed_before=True).winner is prepared
    strange = replace(prepared, golden_difference=GOLDEN_TOLERANCE["int8-dynamic"] * 2)
    assert decide([unjudged, strange], 0.5, passed_before=True).winner is unjudged


@pytest.mark.parametrize(
    ("corrupted", "withheld", "says"),
    [
        (0.695, 0.95, "chosen"),
        (0.69, 0.95, "corrupted images: loses 1.00 points; the budget is 0.50"),
        (0.70, 0.92, "known: gives labels to 3.0 points more of the pictures without land than FP32"),
        (None, None, "chosen"),
    ],
)
def test_a_variant_may_not_be_worse_on_degraded_pictures(corrupted: float | None, withheld: float | None, says: str) -> None:
    reference = replace(FP32, corrupted_accuracy=0.70, not_land_withheld=0.95)
    found = verdicts(reference, replace(INT8, corrupted_accuracy=corrupted, not_land_withheld=withheld))
    assert says in found["int8-dynamic"]
