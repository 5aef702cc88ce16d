"""Options of a command as frozen dataclasses: one dataclass for each panel of its help."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

from typer.models import OptionInfo


def grouped(**panels: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace each named parameter of a command, which is a dataclass, by one option for each of its fields.

    Typer reads the options from the signature. The command itself gets one object for each group:

        @grouped(tiling="Large frames")
        def run(source: str, tiling: Tiling = Tiling()) -> None: ...

    Args:
        panels: the parameter's name to the title of its panel in `--help`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        groups = {name: signature.parameters[name].annotation for name in panels}
        options = [option for name, group in groups.items() for option in options_of(group, panels[name])]
        others = [each for each in signature.parameters.values() if each.name not in groups]
        parameters = [*(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in others), *options]

        @wraps(command)
        def called(**given: Any) -> None:
            made = {
                name: group(**{each.name: given.pop(each.name) for each in fields(group)}) for name, group in groups.items()
            }
            command(**given, **made)

        called.__annotations__ = {each.name: each.annotation for each in parameters}
        called.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
        return called

    return decorate


def options_of(group: Any, panel: str) -> list[inspect.Parameter]:
    """The fields of a dataclass as keyword parameters, shown in one panel."""
    assert is_dataclass(group)
    hints = get_type_hints(group, include_extras=True)
    found: list[inspect.Parameter] = []
    for each in fields(group):
        for part in hints[each.name].__metadata__:
            if isinstance(part, OptionInfo):
                part.rich_help_panel = panel
        found.append(
            inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
        )
    return found
