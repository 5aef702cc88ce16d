"""Several runtimes on the same clip and cores, alternating: `make bench-peers`.

    python -m spatialnet_benchmarks.peers [CLIP] [--rounds 9] [--plot peers.png] [--other-checkout DIR]

Every peer decodes the clip with OpenCV, resizes as we do, runs the same model and outputs the most likely land use of each
frame. Ultralytics crops to a square first. ONNX Runtime, OpenVINO and the SDKs in `peer_sdks.py` get the shipped
graph, PyTorch gets its checkpoint; our second line is the result of `build` for this graph and computer. Each peer may use all
cores as its documentation recommends. Peers that are not installed are listed. `--other-checkout` adds an earlier commit of this
project, with the model that it shipped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

import spatialnet_edge
from spatialnet_benchmarks.peer_checkout import CheckoutPeer
from spatialnet_benchmarks.peer_sdks import HEAD, Peer, roboflow_pipeline, ultralytics_stream
from spatialnet_edge.api import Model
from spatialnet_edge.bundle.reader import MODEL, open_bundle
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.frames import preprocess
from spatialnet_edge.core.hardware_info import cores
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_edge.core.spec import IMAGE_INPUT, IMAGENET_MEAN, IMAGENET_STD, InputSpec
from spatialnet_optimize.build.build import Job, build
from spatialnet_optimize.targets.catalogue import HERE
from spatialnet_training.plots import figure

RESAMPLES = 5000


@dataclass(frozen=True, slots=True)
class Figures:
    """Results of one peer over all rounds.

    Attributes:
        rates: frames per second in each round.
        agreement: share of frames with the same label as ours.
    """

    name: str
    rates: NDArray[np.float64]
    agreement: float


def frames(clip: str, spec: InputSpec) -> Iterator[NDArray[np.uint8]]:
    """A plain loop: decode, resize to the model's input, RGB."""
    capture = cv2.VideoCapture(clip)
    while True:
        arrived, image = capture.read()
        if not arrived:
            capture.release()
            return
        yield preprocess(np.asarray(image, np.uint8)[..., ::-1], spec)


def streamed(model: Model) -> Peer:
    def run(clip: str) -> list[int]:
        source = spatialnet_edge.open_source(clip)
        return [int(result.land_use.probabilities.argmax()) for result in model.stream(source, policy="every")]

    return run


def ours() -> tuple[str, Peer]:
    return f"spatialnet-edge {spatialnet_edge.__version__}", streamed(spatialnet_edge.load("builtin:spatialnet-s", threads=1))


def ours_built() -> tuple[str, Peer]:
    """Our runtime with the bundle that `spatialnet-edge build` makes from the same graph for this computer."""
    with TemporaryDirectory() as folder:
        bundle, _ = build(Job(open_bundle("builtin:spatialnet-s"), HERE, Path(folder) / "built.snb"))
        model = spatialnet_edge.load(bundle.path, threads=1)
    return f"spatialnet-edge, built for this computer ({model.opened.record.precision})", streamed(model)


def plain_onnxruntime() -> tuple[str, Peer]:
    import onnxruntime as ort

    bundle = open_bundle("builtin:spatialnet-s")
    session: Any = ort.InferenceSession(bundle.read(MODEL), providers=["CPUExecutionProvider"])

    def run(clip: str) -> list[int]:
        return [int(session.run([HEAD], {IMAGE_INPUT: image[None]})[0].argmax()) for image in frames(clip, bundle.spec.input)]

    return f"plain loop, ONNX Runtime {ort.__version__}", run


def openvino_queue() -> tuple[str, Peer]:
    """OpenVINO with `AsyncInferQueue`, as documented for throughput."""
    import openvino as ov

    bundle = open_bundle("builtin:spatialnet-s")
    core = ov.Core()
    model = core.read_model(model=bundle.read(MODEL))
    model.reshape({IMAGE_INPUT: [1, *bundle.spec.input.shape]})
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"})
    queue = ov.AsyncInferQueue(compiled)

    def run(clip: str) -> list[int]:
        found: dict[int, int] = {}
        queue.set_callback(lambda request, index: found.__setitem__(index, int(request.get_tensor(HEAD).data.argmax())))
        for index, image in enumerate(frames(clip, bundle.spec.input)):
            queue.start_async({IMAGE_INPUT: image[None]}, index)
        queue.wait_all()
        return [found[index] for index in range(len(found))]

    return f"OpenVINO {version('openvino')}, asynchronous", run


def torch_network(compiled: bool) -> tuple[str, Peer]:
    import torch

    from spatialnet_training.networks.checkpoint import load_network
    from spatialnet_training.networks.checkpoint_paths import WEIGHTS

    network, _, _ = load_network(WEIGHTS / "spatialnet-s")
    network.eval()
    spec = open_bundle("builtin:spatialnet-s").spec.input
    call: Any = torch.compile(network, dynamic=False) if compiled else network
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))

    def classify(image: NDArray[np.uint8]) -> int:
        x = torch.from_numpy(image[None]).permute(0, 3, 1, 2).float()
        return int(call((x - mean) / std)[HEAD].argmax())

    def run(clip: str) -> list[int]:
        with torch.inference_mode():
            return [classify(image) for image in frames(clip, spec)]

    return f"plain loop, PyTorch {torch.__version__} {'compiled' if compiled else 'eager'}", run


PEERS: tuple[Callable[[], tuple[str, Peer]], ...] = (
    ours,
    ours_built,
    plain_onnxruntime,
    openvino_queue,
    lambda: torch_network(compiled=False),
    lambda: torch_network(compiled=True),
    ultralytics_stream,
    roboflow_pipeline,
)


def measure(clip: str, rounds: int, console: Console, others: Sequence[tuple[str, Peer]] = ()) -> list[Figures]:
    """Run every peer of `PEERS` and of `others` once per round, in a new order each round."""
    peers: list[tuple[str, Peer]] = []
    for make in PEERS:
        try:
            peers.append(make())
        except ImportError as error:
            console.print(f"not measured: {error}", style="yellow")
    peers.extend(others)
    answers = {name: run(clip) for name, run in peers}  # warm-up
    reference = answers[peers[0][0]]
    rates: dict[str, list[float]] = {name: [] for name, _ in peers}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for index in order.permutation(len(peers)):
            name, run = peers[index]
            start = time.perf_counter()
            count = len(run(clip))
            rates[name].append(count / (time.perf_counter() - start))
    return [
        Figures(name, np.array(rates[name]), float(np.mean(np.array(answers[name]) == np.array(reference))))
        for name, _ in peers
    ]


def interval(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> tuple[float, float, float]:
    """Median over rounds of the ratio within a round, with a 95 % bootstrap interval. A slow round slows every peer."""
    ratios = numerator / denominator
    if np.ptp(ratios) == 0:
        return float(ratios[0]), float(ratios[0]), float(ratios[0])
    found = stats.bootstrap(
        (ratios,), np.median, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(np.median(ratios)), float(found.low), float(found.high)


def draw(measured: list[Figures], path: Path) -> None:
    """Frames per second of every peer, one dot per round, as a PNG."""
    pyplot, made, axes = figure(1, 1, (9, 0.6 * len(measured) + 1.2))
    axis = np.ravel(axes)[0]
    for row, each in enumerate(reversed(measured)):
        ours = each.name.startswith("spatialnet-edge")
        axis.barh(row, np.median(each.rates), color="#2f6f9f" if ours else "#b8c4cf", height=0.6)
        axis.plot(each.rates, np.full(len(each.rates), row), ".", color="#1c2530", markersize=4)
    axis.set(yticks=range(len(measured)), yticklabels=[each.name for each in reversed(measured)], xlabel="frames per second")
    axis.spines[["top", "right"]].set_visible(False)
    made.savefig(path, dpi=110)
    pyplot.close(made)


def main(
    clip: Annotated[str, typer.Argument(help="A video.")] = "samples/brighton_beach.mp4",
    rounds: Annotated[int, typer.Option(min=1, help="Number of passes of every peer over the clip.")] = 9,
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this PNG.", callback=to_be_written)] = None,
    other_checkout: Annotated[
        Path | None,
        typer.Option(help="Measure this checkout of the project too.", exists=True, file_okay=False),
    ] = None,
) -> None:
    """Measure every runtime that is installed."""
    console = printer()
    with ExitStack() as stack:
        others: list[tuple[str, Peer]] = []
        if other_checkout is not None:
            checkout = stack.enter_context(CheckoutPeer(other_checkout))
            others.append((checkout.name, checkout))
        measured = measure(clip, rounds, console, others)
    title = f"{clip}, {rounds} rounds, {cores()} cores"
    table = Table("runtime", "frames/s", "ours ÷ this", "95 % interval", "same answers", title=title)
    record: dict[str, Any] = {}
    for each in measured:
        ratio, low, high = interval(measured[0].rates, each.rates)
        rate, spread = f"{np.median(each.rates):.1f}", f"{low:.2f} to {high:.2f}"
        table.add_row(each.name, rate, f"{ratio:.2f}", spread, f"{each.agreement:.1%}")
        record[each.name] = {"rates": each.rates.round(2).tolist(), "ratio": [round(v, 3) for v in (ratio, low, high)]}
    console.print(table)
    if plot is not None:
        draw(measured, plot)
    print(json.dumps(record))


if __name__ == "__main__":
    typer.run(main)
