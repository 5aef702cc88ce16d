"""Fixtures of the tests that run on the stand-in of libcuda, in a separate process (see `tests/cuda/test_on_standin.py`)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from spatialnet_edge.engines.devices import registry

CUDA_LIBRARY = os.environ["CUDA_LIBRARY"]
OUT_OF_MEMORY, ILLEGAL_ADDRESS = 2, 700


class Counts(NamedTuple):
    """As `standin_counts` in libcuda.c."""

    retained: int
    depth: int
    allocations: int
    in_use: int
    streams: int
    blocking_streams: int
    graphs: int
    executables: int
    launches: int


class Driver:
    """The stand-in's own functions."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def counts(self) -> Counts:
        found = (ctypes.c_long * len(Counts._fields))()
        self._library.standin_counts(found)
        return Counts(*found)

    def fail(self, function: str, status: int, times: int = 1) -> None:
        self._library.standin_fail(function.encode(), status, times)


@pytest.fixture(scope="session")
def driver() -> Driver:
    return Driver()


@pytest.fixture(scope="session", autouse=True)
def one_library() -> None:
    """Use only the library that this process tests."""
    registry.DEVICES = {CUDA_LIBRARY: registry.DEVICES[CUDA_LIBRARY]}


@pytest.fixture(autouse=True)
def nothing_is_left(driver: Driver) -> Iterator[None]:
    """Every test releases everything except the process's one retained context."""
    yield
    driver.fail("", 0, 0)
    left = driver.counts()
    assert left.retained <= 1
    assert left[1:8] == (0,) * 7, left


@pytest.fixture
def device() -> Iterator[registry.Device]:
    opened = registry.open_device()
    yield opened
    opened.close()


@pytest.fixture
def discrete(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU has memory of its own."""
    monkeypatch.setenv("STANDIN_INTEGRATED", "0")
