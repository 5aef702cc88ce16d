"""Replay recorded footage or an archive of scenes through the bundle of the flight.

python ground_replay.py landuse.snb footage/ results.jsonl --workers 4

Without --workers, one process runs everything. With --workers, Ray Data distributes the files over processes on this computer,
or, after `ray start` and with `--address auto`, over many computers. Labels equal those of the flight, because bundle, graph
and resize are the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

import spatialnet_edge
from spatialnet_edge.core.errors import MissingExtra, SourceRefused

FOOTAGE = (".mp4", ".avi", ".mov", ".mkv", ".tif", ".tiff", ".jpg", ".jpeg", ".png")


class Classifier:
    """A worker: opens and tests the bundle once, then classifies files."""

    def __init__(self, bundle: str) -> None:
        self.model = spatialnet_edge.load(bundle, threads=1)

    def records(self, path: str) -> Iterator[dict[str, Any]]:
        """One record per frame, without times and ages, which differ between runs."""
        with self.model.stream(path, policy="every", workers=1) as results:
            for result in results:
                record = result.to_dict()
                yield {
                    "source": Path(path).name,
                    "seq": record["seq"],
                    "quality": record["quality"],
                    "predictions": record["predictions"],
                }

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Process a batch of Ray Data: from paths to lines."""
        lines = [(path, json.dumps(record)) for path in batch["path"] for record in self.records(str(path))]
        return {"path": [path for path, _ in lines], "line": [line for _, line in lines]}


def replay_here(bundle: str, paths: Iterable[str]) -> Iterator[str]:
    classifier = Classifier(bundle)
    for path in paths:
        for record in classifier.records(path):
            yield json.dumps(record)


def replay_with_ray(bundle: str, paths: list[str], workers: int, address: str) -> Iterator[str]:
    """The same lines in the same order, computed by many processes."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtra("ray", "replay") from error
    ray.init(address=address or None, log_to_driver=False, logging_level="ERROR", **({} if address else {"num_cpus": workers}))
    ray.data.DataContext.get_current().enable_progress_bars = False
    files = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=len(paths))
    done = files.map_batches(Classifier, fn_constructor_args=(bundle,), batch_size=1, concurrency=workers, num_cpus=1)
    found: dict[str, list[str]] = {}
    for row in done.iter_rows():
        found.setdefault(row["path"], []).append(row["line"])
    for path in paths:
        yield from found.get(path, [])
    ray.shutdown()


def main(
    bundle: str,
    footage: Annotated[Path, typer.Argument(help="A file, or a folder of videos, images and scenes.")],
    output: Path,
    workers: Annotated[int, typer.Option(min=0, help="Number of processes; 0: only this one, without Ray.")] = 0,
    address: Annotated[str, typer.Option(help="Address of a Ray cluster; auto: that of this computer.")] = "",
) -> None:
    """Classify an archive; writes one JSON line per frame, sorted by file and frame."""
    if not footage.exists():
        raise SourceRefused(f"{footage}: no such file or folder")
    inside = footage.rglob("*") if footage.is_dir() else [footage]
    paths = sorted(str(path.resolve()) for path in inside if path.suffix.lower() in FOOTAGE)
    if not paths:
        raise SourceRefused(f"{footage}: nothing to replay; looked for {', '.join(FOOTAGE)}")
    started, count = time.monotonic(), 0
    lines = replay_with_ray(bundle, paths, workers, address) if workers else replay_here(bundle, paths)
    with output.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line + "\n")
            count += 1
    seconds = time.monotonic() - started
    typer.echo(f"{count} frames of {len(paths)} files in {seconds:.1f} s: {count / seconds:.1f} frames/s")


if __name__ == "__main__":
    typer.run(main)
