"""Selection of a stream's results and heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.predictions import Classification, MultilabelPrediction
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.core.spec import ModelSpec, Regression


@dataclass(frozen=True, slots=True)
class Selection:
    """Filter for results.

    Attributes:
        show: heads to keep, in this order; empty: all.
        only: pairs of head and label; each label must be the prediction, or be present.
    """

    show: tuple[str, ...] = ()
    only: tuple[tuple[str, str], ...] = ()

    def __call__(self, result: FrameResult) -> FrameResult | None:
        """The result with the heads to show; None if it does not match."""
        if not all(label in labels_of(result, head) for head, label in self.only):
            return None
        if not self.show:
            return result
        return replace(result, predictions={name: result.predictions[name] for name in self.show})


def heads_to_show(spec: ModelSpec, names: Sequence[str]) -> tuple[str, ...]:
    """The value of `StreamOptions.show` for the heads that a person named.

    Args:
        names: of heads; empty for those that people are shown (`ModelSpec.main_heads`), `["all"]` for every head.
    """
    if tuple(names) == ("all",):
        return ()
    return tuple(names) or spec.main_heads


def read_selection(spec: ModelSpec, show: Sequence[str], only: Sequence[str]) -> Selection:
    """Parse a selection and check its heads and labels against the model.

    Args:
        show: names of heads.
        only: `HEAD=LABEL`, such as `objects=buildings`.

    Raises:
        UsageError: a head or a label that the model does not have.
    """
    for name in show:
        _head_labels(spec, name)
    pairs: list[tuple[str, str]] = []
    for text in only:
        name, equals, label = text.partition("=")
        labels = _head_labels(spec, name)
        if not equals or label not in labels:
            raise UsageError(f"'{text}': expected {name}=LABEL with LABEL one of {', '.join(labels) or 'none'}")
        pairs.append((name, label))
    return Selection(tuple(show), tuple(pairs))


def labels_of(result: FrameResult, head: str) -> tuple[str, ...]:
    """The labels that a head predicts for a frame; may be empty."""
    answer = result.predictions[head]
    if isinstance(answer, Classification):
        return () if answer.label is None else (answer.label,)
    return (answer.present or ()) if isinstance(answer, MultilabelPrediction) else ()


def _head_labels(spec: ModelSpec, name: str) -> tuple[str, ...]:
    try:
        head = spec.head(name)
    except KeyError as error:
        raise UsageError(str(error.args[0])) from error
    return () if isinstance(head, Regression) else head.labels
