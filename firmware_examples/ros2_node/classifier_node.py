"""A ROS 2 node from sensor_msgs/Image to vision_msgs/Classification.

ros2 run … or: python classifier_node.py --ros-args -p bundle:=landuse.snb -p head:=land_use -r image:=/camera/image_raw
"""

from __future__ import annotations

import time

import rclpy
from messages import classification, frame_of
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from vision_msgs.msg import Classification, ObjectHypothesis

import spatialnet_edge
from spatialnet_edge.core.errors import InvalidOutput, SourceRefused


class ClassifierNode(Node):
    """Classifies the newest image; during an inference, the middleware keeps one image and drops the others."""

    def __init__(self) -> None:
        super().__init__("spatialnet_edge")
        bundle = self.declare_parameter("bundle", "builtin:student").value
        self.head = self.declare_parameter("head", "land_use").value
        self.most = self.declare_parameter("most", 5).value
        self.model = spatialnet_edge.load(bundle)
        self.seq = 0
        self.publisher = self.create_publisher(Classification, "classification", 10)
        self.create_subscription(Image, "image", self.classify, qos_profile_sensor_data)
        self.get_logger().info(f"{self.model.bundle.spec.name}, {self.model.bundle.signature}; golden test passed")

    def classify(self, image: Image) -> None:
        try:
            result = self.model(frame_of(image, self.seq, "image", time.monotonic_ns()))
        except (SourceRefused, InvalidOutput) as error:
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
            return
        self.seq += 1
        self.publisher.publish(classification(result, self.head, self.most, image.header, Classification, ObjectHypothesis))


def main() -> None:
    rclpy.init()
    node = ClassifierNode()
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
