"""Conversion between ROS 2 messages and frames: plain functions of message objects that can be tested without ROS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.predictions import Classification, MultilabelPrediction
from spatialnet_edge.core.results import FrameResult

CHANNELS = {"rgb8": 3, "bgr8": 3, "mono8": 1, "rgba8": 4, "bgra8": 4}
"""Supported encodings of sensor_msgs/Image (sensor_msgs/image_encodings.hpp)."""


def frame_of(image: Any, seq: int, topic: str, captured_ns: int) -> Frame:
    """A sensor_msgs/Image as a frame. `rgb8` and `bgr8` are used in place, without a copy.

    Raises:
        SourceRefused: another encoding, or less data than height times step.
    """
    channels = CHANNELS.get(image.encoding)
    if channels is None:
        raise SourceRefused(f"{topic}: encoding '{image.encoding}'; expected one of {', '.join(CHANNELS)}")
    raw = np.frombuffer(image.data, np.uint8)
    if raw.size < image.height * image.step or image.step < image.width * channels:
        raise SourceRefused(f"{topic}: {raw.size} bytes for {image.height} rows of {image.step}; the message is cut off")
    rows = raw[: image.height * image.step].reshape(image.height, image.step)
    pixels = rows[:, : image.width * channels].reshape(image.height, image.width, channels)
    stamp = image.header.stamp
    seconds = stamp.sec + stamp.nanosec / 1e9
    if image.encoding == "bgr8":
        return Frame(pixels, seq, topic, captured_ns, seconds, pixel_format="bgr24")
    return Frame(rgb(pixels, image.encoding), seq, topic, captured_ns, seconds)


def rgb(pixels: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    if encoding == "rgb8":
        return pixels
    how = {"mono8": cv2.COLOR_GRAY2RGB, "rgba8": cv2.COLOR_RGBA2RGB, "bgra8": cv2.COLOR_BGRA2RGB}[encoding]
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), how), np.uint8)


def hypotheses(result: FrameResult, head: str, most: int) -> list[tuple[str, float]]:
    """The most likely labels of a head with their scores, best first; empty if there is no label."""
    answer = result.predictions[head]
    if isinstance(answer, Classification):
        return answer.top(most) if answer.label is not None else []
    if isinstance(answer, MultilabelPrediction):
        scores = dict(zip(answer.labels, map(float, answer.probabilities), strict=True))
        return sorted(((label, scores[label]) for label in answer.present or ()), key=lambda each: -each[1])[:most]
    return []


def classification(
    result: FrameResult, head: str, most: int, header: Any, make: Callable[..., Any], make_hypothesis: Callable[..., Any]
) -> Any:
    """A vision_msgs/Classification with the header of its image.

    Args:
        make, make_hypothesis: the message classes; their fields are keyword arguments.
    """
    found: Sequence[Any] = [make_hypothesis(class_id=label, score=score) for label, score in hypotheses(result, head, most)]
    return make(header=header, results=list(found))
