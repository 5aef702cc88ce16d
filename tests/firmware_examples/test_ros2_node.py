"""Real ROS 2 messages through their wire format; the node itself needs rclpy, which is not on a package index."""

import ast
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import spatialnet_edge
from conftest import ROOT, clip_frames
from spatialnet_edge.core.errors import SourceRefused

typesys = pytest.importorskip("rosbags.typesys")
FOLDER = ROOT / "firmware_examples" / "ros2_node"
CLASSIFICATION = "std_msgs/Header header\nvision_msgs/ObjectHypothesis[] results\n"
HYPOTHESIS = "string class_id\nfloat64 score\n"


@pytest.fixture(scope="module")
def ros() -> Iterator[SimpleNamespace]:
    """Message classes of ROS 2 Humble, with vision_msgs as its package defines them."""
    sys.path.insert(0, str(FOLDER))
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    types = typesys.get_types_from_msg(HYPOTHESIS, "vision_msgs/msg/ObjectHypothesis")
    types |= typesys.get_types_from_msg(CLASSIFICATION, "vision_msgs/msg/Classification")
    store.register(types)
    yield SimpleNamespace(store=store, **{name.rpartition("/")[2]: store.types[name] for name in (
        "sensor_msgs/msg/Image", "std_msgs/msg/Header", "builtin_interfaces/msg/Time", "vision_msgs/msg/Classification",
        "vision_msgs/msg/ObjectHypothesis",
    )})  # fmt: skip
    sys.path.remove(str(FOLDER))


def image(ros: SimpleNamespace, pixels: np.ndarray, encoding: str, padding: int = 0):
    """A message as from a camera driver, through the wire format."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    data = np.pad(rows, ((0, 0), (0, padding))).ravel()
    header = ros.Header(stamp=ros.Time(sec=100, nanosec=500_000_000), frame_id="camera")
    step = rows.shape[1] + padding
    message = ros.Image(header=header, height=height, width=width, encoding=encoding, is_bigendian=0, step=step, data=data)
    raw = ros.store.serialize_cdr(message, "sensor_msgs/msg/Image")
    return ros.store.deserialize_cdr(raw, "sensor_msgs/msg/Image")


@pytest.mark.parametrize("padding", [0, 13])
def test_every_encoding_is_the_same_picture(ros: SimpleNamespace, padding: int) -> None:
    from messages import frame_of

    rgb = clip_frames(1)[0][::4, ::4]
    grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    alpha = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    for encoding, pixels in {"rgb8": rgb, "bgr8": rgb[..., ::-1], "rgba8": alpha, "bgra8": alpha[..., [2, 1, 0, 3]]}.items():
        frame = frame_of(image(ros, pixels, encoding, padding), 3, "/camera", 42)
        assert np.array_equal(frame.pixels, rgb), encoding
        assert (frame.seq, frame.captured_ns, frame.captured_unix) == (3, 42, 100.5)
    assert np.array_equal(frame_of(image(ros, grey, "mono8", padding), 0, "/camera", 0).pixels, np.dstack([grey] * 3))


def test_colour_images_are_not_copied(ros: SimpleNamespace) -> None:
    from messages import frame_of

    for encoding in ("rgb8", "bgr8"):
        message = image(ros, clip_frames(1)[0], encoding)
        frame = frame_of(message, 0, "/camera", 0)
        assert np.shares_memory(frame.pixels, np.frombuffer(message.data, np.uint8))


def test_unsupported_messages_are_refused(ros: SimpleNamespace) -> None:
    from messages import frame_of

    with pytest.raises(SourceRefused, match="encoding '16UC1'"):
        frame_of(image(ros, clip_frames(1)[0], "16UC1"), 0, "/camera", 0)
    cut = image(ros, clip_frames(1)[0], "rgb8")
    cut.data = cut.data[:-1]
    with pytest.raises(SourceRefused, match="cut off"):
        frame_of(cut, 0, "/camera", 0)


def test_a_result_has_the_images_header(ros: SimpleNamespace) -> None:
    from messages import classification, frame_of

    message = image(ros, clip_frames(1)[0], "rgb8")
    with spatialnet_edge.load("builtin:spatialnet-s") as model:
        result = model(frame_of(message, 0, "/camera", 0))
    answer = classification(result, "settlement", 2, message.header, ros.Classification, ros.ObjectHypothesis)
    raw = ros.store.serialize_cdr(answer, "vision_msgs/msg/Classification")
    back = ros.store.deserialize_cdr(raw, "vision_msgs/msg/Classification")
    assert back.header.stamp.sec == 100
    assert [(each.class_id, round(each.score, 5)) for each in back.results] == [
        (label, round(score, 5)) for label, score in result.settlement.top(2)
    ]
    assert result.settlement.label is not None
    unsure = next(name for name, each in result.predictions.items() if getattr(each, "label", "") is None)
    assert classification(result, unsure, 3, message.header, ros.Classification, ros.ObjectHypothesis).results == []
    objects = classification(result, "objects", 20, message.header, ros.Classification, ros.ObjectHypothesis)
    assert {each.class_id for each in objects.results} == set(result.objects.present)
    assert classification(result, "object_kinds", 3, message.header, ros.Classification, ros.ObjectHypothesis).results == []


def test_the_node_and_its_launch_file_are_valid_python() -> None:
    for path in (FOLDER / "classifier_node.py", FOLDER / "launch" / "classifier.launch.py"):
        compile(ast.parse(path.read_text(encoding="utf-8")), str(path), "exec")
