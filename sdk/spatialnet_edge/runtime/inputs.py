"""Open sources. Only this module decides which sources run in a separate process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias, final

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.redaction import redacted
from spatialnet_edge.core.spec import BandGroup
from spatialnet_edge.runtime.options import StreamOptions
from spatialnet_edge.sources.credentials import with_credentials
from spatialnet_edge.sources.iterable import IterableSource
from spatialnet_edge.sources.registry import DEVICES, GivesBands, Source, check_source, open_source, parse_uri
from spatialnet_edge.sources.supervised import Report, SupervisedSource, Timeouts

SourceLike: TypeAlias = "str | os.PathLike[str] | int | Source | Iterable[Any]"
"""A URI, a path, a camera index, an open `Source`, or an iterable of images (`ImageLike`) or frames."""


def open_input(source: SourceLike, options: StreamOptions, report: Report, name: str | None = None) -> Source:
    """Open a source. Devices and network streams run in a separate process, so that they may hang, crash or disconnect and be
    restarted.

    Args:
        name: display name; None: the URI without its user and password.

    Raises:
        SourceRefused: it does not exist, is empty, or has another format; of a source in a separate process: an option of its URI
            is unknown or invalid.
        NotInstalled: a library that it needs is not installed.
        UsageError: not a source, or a file of credentials that cannot be read.
    """
    if isinstance(source, str | os.PathLike | int):
        uri = str(source)
        shown = name or redacted(uri)
        kind = parse_uri(uri).kind
        own_process = kind in DEVICES if options.own_process is None else options.own_process
        if own_process:
            check_source(uri)
        if kind == "stream":
            uri = with_credentials(uri.strip(), options.credentials)
        if own_process:
            give_up = "unopened" if options.wait is False else "never"
            return SupervisedSource(uri, Timeouts(silence=options.silence_s, give_up=give_up), report, name=shown)
        opened = open_source(uri)
        return opened if shown == uri else NamedSource(opened, shown)
    if isinstance(source, Source):
        return source
    try:
        iter(source)
    except TypeError as error:
        raise UsageError(
            f"a source is a {type(source).__name__}; expected a URI, a path, a camera index, a Source or an iterable of images"
        ) from error
    return IterableSource(source)


@final
class NamedSource:
    """A source with a display name other than its URI."""

    def __init__(self, source: Source, name: str) -> None:
        self.uri = name
        self.live = source.live
        self.length = source.length
        self.fps = source.fps
        self._source = source

    def __iter__(self) -> Iterator[Frame | Skipped]:
        for item in self._source:
            yield replace(item, source=self.uri) if isinstance(item, Frame) else item

    def for_groups(self, groups: tuple[BandGroup, ...]) -> None:
        """See `GivesBands`; nothing for a source that gives colour alone."""
        if isinstance(self._source, GivesBands):
            self._source.for_groups(groups)

    def close(self) -> None:
        self._source.close()
