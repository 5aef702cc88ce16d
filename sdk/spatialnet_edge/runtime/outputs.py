"""Open sinks, each with a bounded queue and a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from spatialnet_edge.core.errors import SinkError, SpatialNetError
from spatialnet_edge.sinks.queued import QueuedSink
from spatialnet_edge.sinks.registry import Sink, names_of, open_sink
from spatialnet_edge.sources.supervised import Report

Sinks: TypeAlias = "Sequence[str | Sink] | Mapping[str, str | Sink]"
"""URIs and open sinks; a mapping sets their display names."""


def open_outputs(sinks: Sinks, live: bool, wait: bool, report: Report) -> list[QueuedSink]:
    """Open every sink behind its own queue.

    Args:
        live: True: a full queue drops its oldest result. False: the pipeline waits and no result is dropped.
        wait: a sink URI that is absent or fails later is reopened without limit.

    Raises:
        Refused, UsageError, SinkError: a sink cannot be opened; the sinks that were already open are closed.
    """
    named = sinks if isinstance(sinks, Mapping) else dict(zip(names_of([scheme(each) for each in sinks]), sinks, strict=True))
    opened: list[QueuedSink] = []
    try:
        for name, each in named.items():
            opened.append(_queued(name, each, live, wait, report))
    except BaseException:
        for each in opened:
            with suppress(SpatialNetError):
                each.close()
        raise
    return opened


def scheme(sink: str | Sink) -> str:
    """The default name of a sink: the scheme of its URI."""
    return sink if isinstance(sink, str) else sink.name if isinstance(sink, QueuedSink) else type(sink).__name__


def _queued(name: str, sink: str | Sink, live: bool, wait: bool, report: Report) -> QueuedSink:
    if isinstance(sink, QueuedSink):
        return sink
    if not isinstance(sink, str):
        return QueuedSink(sink, wait=not live, report=report, name=name)
    opened = _open_or_wait(sink, report) if wait else open_sink(sink)
    return QueuedSink(opened, wait=not live, reopen=partial(open_sink, sink) if wait else None, report=report, name=name)


def _open_or_wait(uri: str, report: Report) -> Sink | None:
    """Open a sink; None if its peer is not available yet, because a vehicle may start before its link is up."""
    try:
        return open_sink(uri)
    except SinkError as error:
        report("sink_failed", f"{error}; retried until it opens")
        return None
