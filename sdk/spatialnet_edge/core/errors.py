"""Everything that can go wrong, each with what was found, what was expected and what to do next.

    SpatialNetError
    ├── UsageError             2   the request itself makes no sense: unknown target, head or option value
    ├── Refused               78   refused before any work was done; restarting will not help
    │   ├── ConfigRefused          the configuration of a service is wrong
    │   ├── BundleError            the bundle is truncated, changed, hostile or of another format
    │   ├── GoldenTestFailed       the engine does not reproduce the bundle's golden vectors
    │   ├── EngineUnavailable      no backend here can run what the bundle holds
    │   ├── SourceRefused          the source does not exist, is empty, or is not what it claims to be
    │   ├── SinkRefused            a sink's file or folder cannot be written
    │   ├── Busy                   another process holds the device
    │   ├── DataRefused            labelled images that cannot be used as asked
    │   ├── MissingExtra           an optional library is not installed
    │   └── BrokenLibrary          a library is installed but does not load
    └── RunError               1   failed while running; what was written so far stays readable
        ├── EngineError            the engine failed, or its answers cannot be trusted
        ├── SourceLost             the source stopped before its end
        ├── SinkError              a sink could not take a result
        │   └── ReaderGone         the reader of standard output has closed it
        └── BuildError             no candidate passed the gates, or a compiler refused the graph

The number is the exit status of the command line (78 is EX_CONFIG in BSD's sysexits.h: a supervisor must not restart on it).
Library exceptions are translated once, where they are met, with the cause kept.
"""

from __future__ import annotations

from typing import ClassVar

from spatialnet_edge.core.installation import install_command
from spatialnet_edge.core.redaction import redacted


class SpatialNetError(Exception):
    """The root; catch this to catch whatever the package raises on purpose. Its text shows no user or password of a URI."""

    exit_status: ClassVar[int] = 1

    def __str__(self) -> str:
        return redacted(super().__str__())


class UsageError(SpatialNetError):
    exit_status = 2


class Refused(SpatialNetError):
    exit_status = 78


class ConfigRefused(Refused):
    pass


class BundleError(Refused):
    pass


class GoldenTestFailed(Refused):
    pass


class EngineUnavailable(Refused):
    pass


class SourceRefused(Refused):
    pass


class SinkRefused(Refused):
    pass


class Busy(Refused):
    pass


class DataRefused(Refused):
    pass


class MissingExtra(Refused):
    """An optional library is not there.

    Args:
        library: the import name that failed.
        extra: the extra of spatialnet-edge that brings it.
    """

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"the library '{library}' is not installed; it comes with: {install_command(extra)}")
        self.library = library
        self.extra = extra


class BrokenLibrary(Refused):
    """A library is installed but does not load, such as an OpenCV that was built for another NumPy.

    Args:
        found: the library, and what it said.
    """

    def __init__(self, found: str) -> None:
        super().__init__(
            f"a library is installed here but does not load: {found}; 'spatialnet-edge doctor' says how to mend it"
        )


class RunError(SpatialNetError):
    pass


class EngineError(RunError):
    pass


class InvalidOutput(EngineError):
    """One answer of the engine breaks its contract (NaN, wrong shape, probabilities that do not sum to 1)."""


class SourceLost(RunError):
    pass


class SinkError(RunError):
    pass


class ReaderGone(SinkError):
    """The reader of standard output has closed it, as `head` does when it has enough."""


class BuildError(RunError):
    pass


def first_line(error: BaseException, limit: int = 200) -> str:
    """What a library's exception says, on one line; its name when it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__
