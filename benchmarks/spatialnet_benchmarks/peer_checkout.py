"""Another checkout of this project as a peer, such as an earlier commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, final

CHILD = """
import json, sys
import spatialnet_edge

model = spatialnet_edge.load("builtin:student", threads=1)
# Commit 82916bb has Model.pipeline instead of Model.stream.
stream = getattr(model, "stream", None) or (lambda source, policy: model.pipeline(policy).stream(source))
for clip in sys.stdin:
    source = spatialnet_edge.open_source(clip.rstrip())
    print(json.dumps([int(each.land_use.probabilities.argmax()) for each in stream(source, policy="every")]), flush=True)
"""


@final
class CheckoutPeer:
    """A process with another checkout's runtime and its own shipped model, loaded once. It is a context manager.

    Args:
        folder: the checkout, for example of `git worktree add DIR COMMIT`.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"spatialnet-edge at {commit_of(folder)}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env=os.environ | {"PYTHONPATH": str(folder.resolve() / "sdk")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, clip: str) -> list[int]:
        """The index of the most likely land use of each frame.

        Raises:
            RuntimeError: the process ended; its standard error has the reason.
        """
        requests, answers = self._pipes
        requests.write(f"{Path(clip).resolve()}\n")
        requests.flush()
        line = answers.readline()
        if not line:
            raise RuntimeError(f"{self.name}: its process ended with status {self._process.wait()}; see its messages above")
        return json.loads(line)

    @property
    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def __enter__(self) -> CheckoutPeer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.__exit__(kind, error, trace)  # closes the pipes, which ends the process, and waits for it


def commit_of(folder: Path) -> str:
    """The short hash of a checkout, or the folder's name if it is not a repository of its own."""
    if not (folder / ".git").exists():
        return folder.name
    asked = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
