"""Routing rule: one readable line that selects the frames for the downlink.

    keep if land_use in [residential, industrial] and p >= 0.8 else thumbnail

`p` is the confidence of the last named head. Conditions: `HEAD in [LABEL, …]`, `HEAD is LABEL`, `HEAD has LABEL` (a
present object), `HEAD >= NUMBER` (a quantity), `known >= NUMBER`, `p >= NUMBER`, `unknown` (the frame has no label),
joined by `and`, or `always`. Other frames become a `thumbnail` or are dropped (`nothing`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.predictions import Classification, MultilabelPrediction, RegressionPrediction
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.core.spec import KNOWN, ModelSpec, Multiclass, Multilabel, Regression

RULE = re.compile(r"^\s*keep\s+if\s+(?P<conditions>.+?)\s+else\s+(?P<otherwise>thumbnail|nothing)\s*$")
NAME, NUMBER = r"[a-z][a-z0-9_]*", r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
CONDITION = re.compile(
    rf"^(?:(?P<always>always)|(?P<unknown>unknown)|p\s*(?:>=|≥)\s*(?P<least>{NUMBER})|(?P<head>{NAME})\s+in\s+\[(?P<labels>[^\]]+)\]|(?P<one>{NAME})\s+is\s+(?P<label>\w+)"
    rf"|(?P<many>{NAME})\s+has\s+(?P<object>\w+)|(?P<quantity>{NAME})\s*(?:>=|≥)\s*(?P<amount>{NUMBER}))$"
)
Condition = Callable[[FrameResult], bool]


@dataclass(frozen=True, slots=True)
class Route:
    """A parsed rule: the conditions for keeping a frame, and the decision for other frames."""

    conditions: tuple[Condition, ...]
    otherwise: str

    def decide(self, result: FrameResult) -> str:
        """The decision for a result: `keep`, `thumbnail` or `nothing`."""
        return "keep" if all(condition(result) for condition in self.conditions) else self.otherwise


def read_rule(text: str, spec: ModelSpec) -> Route:
    """Parse a rule and check every name in it against the model.

    Raises:
        UsageError: not a rule, or an unknown head or label.
    """
    found = RULE.match(text)
    if found is None:
        example = "keep if land_use is water and p >= 0.8 else nothing"
        raise UsageError(f"'{text}': expected 'keep if CONDITION and … else thumbnail'; example: '{example}'")
    conditions: list[Condition] = []
    head = ""
    for part in re.split(r"\s+and\s+", found["conditions"]):
        condition, head = _read_condition(part.strip(), spec, head)
        conditions.append(condition)
    return Route(tuple(conditions), found["otherwise"])


def _read_condition(text: str, spec: ModelSpec, before: str) -> tuple[Condition, str]:
    match = CONDITION.match(text)
    if match is None:
        raise UsageError(f"'{text}' is not a condition; the docstring of spatialnet_edge.sinks.routing lists them")
    if match["always"]:
        return (lambda result: True), before
    if match["unknown"]:
        return (lambda result: result.reason is not None), before
    if match["least"]:
        if not before:
            raise UsageError(f"'{text}': p needs a head before it, such as 'land_use is water and {text}'")
        least = float(match["least"])
        return (lambda result: _confidence(result, before) >= least), before
    if match["quantity"] == KNOWN:
        return _known_at_least(float(match["amount"]), spec), before
    if match["quantity"]:
        name, amount = _head(match["quantity"], spec, Regression), float(match["amount"])
        return (lambda result: _quantity(result, name) >= amount), name
    if match["many"]:
        name = _head(match["many"], spec, Multilabel)
        wanted = _labels([match["object"]], name, spec)
        return (lambda result: bool(wanted & set(_present(result, name)))), name
    name = _head(match["head"] or match["one"], spec, Multiclass)
    wanted = _labels((match["labels"] or match["label"]).split(","), name, spec)
    return (lambda result: _label(result, name) in wanted), name


def _known_at_least(least: float, spec: ModelSpec) -> Condition:
    if spec.known is None:
        raise UsageError(f"'known >= {least}': {spec.name} has no output 'known'; build it from a checkpoint that has one")
    return lambda result: result.known is not None and result.known >= least


def _head(name: str, spec: ModelSpec, kind: type) -> str:
    heads = [head.name for head in spec.heads if isinstance(head, kind)]
    if name not in heads:
        raise UsageError(f"no {kind.__name__.lower()} head '{name}'; this model has {', '.join(heads) or 'none'}")
    return name


def _labels(names: list[str], name: str, spec: ModelSpec) -> frozenset[str]:
    head = spec.head(name)
    known = () if isinstance(head, Regression) else head.labels
    wanted = frozenset(each.strip() for each in names)
    if unknown := wanted - set(known):
        raise UsageError(f"'{name}' has no label '{min(unknown)}'; it has {', '.join(known)}")
    return wanted


def _label(result: FrameResult, head: str) -> str | None:
    answer = result.predictions[head]
    return answer.label if isinstance(answer, Classification) else None


def _present(result: FrameResult, head: str) -> tuple[str, ...]:
    answer = result.predictions[head]
    return (answer.present or ()) if isinstance(answer, MultilabelPrediction) else ()


def _quantity(result: FrameResult, head: str) -> float:
    answer = result.predictions[head]
    return answer.value if isinstance(answer, RegressionPrediction) and answer.value is not None else float("-inf")


def _confidence(result: FrameResult, head: str) -> float:
    answer = result.predictions[head]
    if isinstance(answer, Classification):
        return answer.confidence
    return max((float(p) for p in answer.probabilities), default=0.0) if isinstance(answer, MultilabelPrediction) else 1.0
