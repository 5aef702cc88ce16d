"""`ros2 launch launch/classifier.launch.py bundle:=landuse.snb image:=/camera/image_raw`"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

NODE = Path(__file__).parents[1] / "classifier_node.py"


def generate_launch_description() -> LaunchDescription:
    arguments = {"bundle": "builtin:student", "head": "land_use", "image": "/camera/image_raw"}
    values = {name: LaunchConfiguration(name) for name in arguments}
    command = [
        "python3", str(NODE), "--ros-args", "-p", ["bundle:=", values["bundle"]], "-p", ["head:=", values["head"]],
        "-r", ["image:=", values["image"]],
    ]  # fmt: skip
    declared = [DeclareLaunchArgument(name, default_value=value) for name, value in arguments.items()]
    return LaunchDescription([*declared, ExecuteProcess(cmd=command, output="screen", respawn=True)])
