"""Command-line options of `train` that override a configuration."""

from __future__ import annotations

from dataclasses import dataclass


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


def names(text: str) -> tuple[str, ...]:
    """Split comma-separated names and strip blanks."""
    return tuple(each.strip() for each in text.split(",") if each.strip())
