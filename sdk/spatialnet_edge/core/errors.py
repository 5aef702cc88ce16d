"""All errors. Each message states what was found, what was expected and what to do next.

    SpatialNetError
    ├── UsageError             2   invalid request: unknown target, head or option value
    ├── Refused               78   refused before any work; restarting does not help
    │   ├── ConfigRefused          the configuration of a service is invalid
    │   ├── BundleError            the bundle is truncated, changed, hostile or of another format
    │   ├── GoldenTestFailed       the engine does not reproduce the bundle's golden vectors
    │   ├── EngineUnavailable      no installed backend can run the bundle
    │   ├── SourceRefused          the source does not exist, is empty, or has another format
    │   ├── SinkRefused            a sink's file or folder cannot be written
    │   ├── Busy                   another process holds the device
    │   ├── DataRefused            labelled images that cannot be used
    │   ├── NotInstalled           a library or program of the system is not installed
    │   │   └── MissingExtra       an optional Python library is not installed
    │   └── BrokenLibrary          a library is installed but does not load
    └── RunError               1   failed while running; data written so far stay readable
        ├── EngineError            the engine failed, or its outputs are wrong
        ├── SourceLost             the source stopped before its end
        ├── SinkError              a sink could not write a result
        │   └── ReaderGone         the reader of standard output has closed it
        └── BuildError             no variant passed the gates, or a compiler refused the graph

The number is the exit status of the command line (78 is EX_CONFIG in BSD's sysexits.h: a supervisor must not restart on it).
Exceptions of libraries are converted once, at the call, and kept as the cause.
"""

from __future__ import annotations

from typing import ClassVar

from spatialnet_edge.core.installation import install_command
from spatialnet_edge.core.redaction import redacted


class SpatialNetError(Exception):
    """Base class of all errors that the package raises. Users and passwords of URIs are removed from the text."""

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


class NotInstalled(Refused):
    """A library or program of the system, such as GStreamer, is not installed."""


class MissingExtra(NotInstalled):
    """An optional library is not installed.

    Args:
        library: import name of the library.
        extra: the extra of spatialnet-edge that installs it.
    """

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"the library '{library}' is not installed; install it with: {install_command(extra)}")
        self.library = library
        self.extra = extra


class BrokenLibrary(Refused):
    """A library is installed but does not load, such as an OpenCV built for another NumPy.

    Args:
        found: the library and its error message.
    """

    def __init__(self, found: str) -> None:
        super().__init__(f"an installed library does not load: {found}; run 'spatialnet-edge doctor' for the fix")


class RunError(SpatialNetError):
    pass


class EngineError(RunError):
    pass


class InvalidOutput(EngineError):
    """One output of the engine is invalid (NaN, wrong shape, probabilities that do not sum to 1)."""


class SourceLost(RunError):
    pass


class SinkError(RunError):
    pass


class ReaderGone(SinkError):
    """The reader of standard output has closed it, as `head` does."""


class BuildError(RunError):
    pass


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an exception's message; the exception's name if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__
