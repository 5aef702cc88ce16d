"""The model contract: valid models, and the message for each mistake."""

import msgspec
import pytest

from spatialnet_edge.core.spec import RGB, BandGroup, InputSpec, ModelSpec, Multiclass, Multilabel, Regression

INPUT = InputSpec(height=8, width=16, groups=(RGB,))
SHADE = Multiclass(name="shade", labels=("dark", "bright"))


def test_round_trip_through_json_keeps_every_kind_of_task() -> None:
    spec = ModelSpec(
        name="all kinds",
        input=INPUT,
        heads=(
            Multiclass(name="a", labels=("x", "y"), temperature=1.5, abstain_below=0.4),
            Multilabel(name="b", labels=("p", "q"), thresholds=(0.2, 0.8)),
            Regression(name="c", unit="ships", low=0, high=500),
        ),
    )
    assert msgspec.json.decode(msgspec.json.encode(spec), type=ModelSpec) == spec


def test_channels_are_the_groups_bands_in_order() -> None:
    groups = (RGB, BandGroup(name="nir", bands=("nir",)))
    assert InputSpec(height=4, width=4, groups=groups).shape == (4, 4, 4)


def bad_two_of_a_name() -> ModelSpec:
    return ModelSpec(name="m", input=INPUT, heads=(SHADE, SHADE))


def bad_reserved_name() -> ModelSpec:
    return ModelSpec(name="m", input=INPUT, heads=(Multiclass(name="seq", labels=("x", "y")),))


def bad_no_head() -> ModelSpec:
    return ModelSpec(name="m", input=INPUT, heads=())


def bad_thresholds() -> Multilabel:
    return Multilabel(name="b", labels=("p", "q"), thresholds=(0.5,))


def bad_repeated_label() -> Multiclass:
    return Multiclass(name="a", labels=("x", "x"))


def bad_single_label() -> Multiclass:
    return Multiclass(name="a", labels=("x",))


def bad_range() -> Regression:
    return Regression(name="c", unit="", low=1, high=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_two_of_a_name, "found twice: shade"),
        (bad_reserved_name, "'seq' is reserved"),
        (bad_no_head, "at least one head"),
        (bad_thresholds, "2 labels and 1 thresholds"),
        (bad_repeated_label, "has a label twice: x"),
        (bad_single_label, "needs at least 2"),
        (bad_range, "low must be less"),
    ],
)
def test_a_mistake_is_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0), ("temperature", -1), ("abstain_below", 1.5), ("name", "Land Use"), ("labels", ["", "x"])],
)
def test_values_out_of_range_are_refused_when_read(field: str, value: object) -> None:
    head = {"kind": "multiclass", "name": "a", "labels": ["x", "y"], field: value}
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert(head, Multiclass)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="extra"):
        msgspec.convert({"kind": "multiclass", "name": "a", "labels": ["x", "y"], "extra": 1}, Multiclass)


def test_keep_selects_heads_and_names_what_is_missing() -> None:
    spec = ModelSpec(name="m", input=INPUT, heads=(SHADE, Regression(name="level", unit="", low=0, high=1)))
    assert [head.name for head in spec.keep(("level",)).heads] == ["level"]
    with pytest.raises(KeyError, match="no head 'ships'; this model has shade, level"):
        spec.keep(("ships",))
