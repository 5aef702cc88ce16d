"""The comparison with other runtimes: the same work, and a ratio within each round."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from conftest import CLIP, ROOT
from spatialnet_benchmarks import peers
from spatialnet_benchmarks.peer_checkout import CheckoutPeer


def test_installed_peers_give_the_same_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent():
        raise ImportError("no such runtime")

    monkeypatch.setattr(peers, "PEERS", (peers.ours, peers.plain_onnxruntime, absent, peers.openvino_queue))
    console = Console(record=True, quiet=True)
    found = peers.measure(str(CLIP), 1, console)
    assert len(found) == 3
    assert all(each.agreement > 0.98 and each.rates.min() > 0 for each in found)


def test_a_slow_round_affects_all_peers() -> None:
    moods = np.array([1.0, 0.5, 2.0, 0.7, 1.3])
    ratio, low, high = peers.interval(150 * moods, 100 * moods)
    assert ratio == pytest.approx(1.5)
    assert (low, high) == (pytest.approx(1.5), pytest.approx(1.5))


def test_the_built_bundle_is_a_separate_row() -> None:
    name, run = peers.ours_built()
    assert "built for this computer" in name
    _, reference = peers.ours()
    answers = np.array(run(str(CLIP))) == np.array(reference(str(CLIP)))
    assert len(answers) == 242
    assert answers.mean() > 0.9


def test_another_checkout_runs_in_its_own_process() -> None:
    with CheckoutPeer(ROOT) as checkout:
        assert checkout.name.startswith("spatialnet-edge at ")
        _, ours = peers.ours()
        assert checkout(str(CLIP)) == ours(str(CLIP))
        assert len(checkout(str(CLIP))) == 242


def test_a_checkout_that_does_not_start_says_so(tmp_path: Path) -> None:
    (tmp_path / "sdk").mkdir()
    (tmp_path / "sdk/spatialnet_edge.py").write_text("raise ImportError")
    with CheckoutPeer(tmp_path) as broken, pytest.raises(RuntimeError, match="ended with status 1"):
        broken(str(CLIP))
