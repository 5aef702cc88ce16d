"""Command-line options of `train` that override a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from spatialnet_edge.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class PlainOptions:
    """Options of the command line; None if not given."""

    batch: int | None = None
    lr: float | None = None
    seed: int | None = None
    flips: str | None = None
    fine_tune: str | None = None
    balance: str | None = None
    backbone: str | None = None

    def overrides(self) -> tuple[str, ...]:
        """The options in the notation of `--set`."""
        settings = {
            "batch": self.batch,
            "learning_rate": self.lr,
            "seed": self.seed,
            "flips": self.flips,
            "fine_tune": self.fine_tune,
            "class_balance": self.balance,
            "backbone": self.backbone,
        }
        return tuple(f"{name}={quoted(value)}" for name, value in settings.items() if value is not None)


def quoted(value: object) -> str:
    """A value in TOML notation."""
    return f'"{value}"' if isinstance(value, str) else str(value)


def numbers(text: str, option: str) -> tuple[float, float]:
    """Parse `LOW,HIGH` as two numbers.

    Raises:
        UsageError: not two numbers, or the first is not less than the second.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text}: give two numbers separated by a comma, such as 0,4095") from error
    if not low < high:
        raise UsageError(f"{option} {text}: the first number must be less than the second")
    return low, high


def names(text: str) -> tuple[str, ...]:
    """Split comma-separated names and strip blanks."""
    return tuple(each.strip() for each in text.split(",") if each.strip())
