"""The plain options of `train` that override a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from spatialnet_edge.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class PlainOptions:
    """Options of the command line; None where one is not given."""

    batch: int | None = None
    lr: float | None = None
    seed: int | None = None
    flips: str | None = None
    fine_tune: str | None = None
    balance: str | None = None
    backbone: str | None = None

    def overrides(self) -> tuple[str, ...]:
        """As `--set` takes them."""
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
    """A value as TOML writes it."""
    return f'"{value}"' if isinstance(value, str) else str(value)


def numbers(text: str, option: str) -> tuple[float, float]:
    """`LOW,HIGH` as two numbers.

    Raises:
        UsageError: not two numbers, or the first is not less than the second.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text}: give two numbers with a comma between them, such as 0,4095") from error
    if not low < high:
        raise UsageError(f"{option} {text}: the first number must be less than the second")
    return low, high


def names(text: str) -> tuple[str, ...]:
    """Names that commas separate, each without the blanks around it."""
    return tuple(each.strip() for each in text.split(",") if each.strip())
