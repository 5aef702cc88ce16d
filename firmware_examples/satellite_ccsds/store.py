"""Power-safe downlink queue on disk, best products first.

One file per product, named by its priority and bundle, so that a sorted listing is the queue:
`p0.9713_000123_keep_0a1b2c3d4e5f6071.jpg`. Sent products are moved to `sent/` and stay until room is needed. The sequence
count of the packets is stored next to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spatialnet_edge.core.atomic_io import sync_folder, write_durably

SEQUENCE, SENT = "sequence", "sent"
NO_BUNDLE = "none"


@dataclass(frozen=True, slots=True)
class Product:
    """One picture in the queue."""

    path: Path
    worth: float
    seq: int
    kind: str
    bundle: str | None


class Store:
    """The queue of one satellite."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / SENT).mkdir(parents=True, exist_ok=True)

    def add(self, worth: float, seq: int, kind: str, content: bytes, bundle: str | None = None) -> None:
        """Add a product. After this returns, a power cut does not lose it."""
        write_durably(self.folder / f"p{worth:.4f}_{seq:09d}_{kind}_{bundle or NO_BUNDLE}.jpg", content)

    def waiting(self) -> Iterator[Product]:
        """The queue: full frames before thumbnails, then by decreasing confidence."""
        found: list[Product] = []
        for path in self.folder.glob("p*_*_*_*.jpg"):
            worth, seq, kind, bundle = path.stem[1:].split("_")
            found.append(Product(path, float(worth), int(seq), kind, None if bundle == NO_BUNDLE else bundle))
        yield from sorted(found, key=lambda product: (product.kind != "keep", -product.worth, product.seq))

    def next_number(self) -> int:
        """The number of the next frame. Numbers continue after a restart, because the ground uses them for counting."""
        taken = [
            int(path.stem.split("_")[1])
            for folder in (self.folder, self.folder / SENT)
            for path in folder.glob("p*_*_*_*.jpg")
        ]
        return max(taken, default=-1) + 1

    def mark_sent(self, product: Product) -> None:
        product.path.rename(self.folder / SENT / product.path.name)
        sync_folder(self.folder)

    @property
    def sequence(self) -> int:
        """Sequence count of the next packet."""
        path = self.folder / SEQUENCE
        return int(path.read_text()) if path.exists() else 0

    @sequence.setter
    def sequence(self, value: int) -> None:
        write_durably(self.folder / SEQUENCE, str(value).encode())
