"""`ros2 launch @PACKAGE@ drive.launch.py`; `--show-args` lists the arguments."""

# launch and launch_ros come with ROS 2.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from pathlib import Path
from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(__file__).parent.parent / "config" / "params.yaml"
ARGUMENTS = {
    "params_file": (str(CONFIG), "parameters of the node"),
    "@TRIGGER@": ("@DEFAULT@", "@MEANING@"),
    "namespace": ("", "namespace of the node and of its topics: 'robot1'"),
    "stamped": (
        "",
        "true: velocities are TwistStamped; false: Twist; auto: by ROS_DISTRO; empty: as params_file says",
    ),
    "use_sim_time": ("false", "whether to use a simulation's clock"),
}


def generate_launch_description() -> LaunchDescription:
    """Return the description of the launch."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=what)
        for name, (default, what) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_nodes)])


def _nodes(context: Any) -> list[Node]:
    words = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    flags = {
        name: words[name].lower() in ("true", "1") for name in ("start", "use_sim_time") if name in words
    }
    # An argument that is not given leaves the value of the parameter file.
    given: dict[str, Any] = {name: True for name, flag in flags.items() if flag}
    for name in ("goal", "stamped"):
        if words.get(name):
            given[name] = ParameterValue(words[name], value_type=str)
    node = Node(
        package="@PACKAGE@",
        executable="drive",
        name="@PACKAGE@",
        namespace=words["namespace"],
        output="screen",
        parameters=[words["params_file"], *([given] if given else [])],
        # In a namespace tf is there too; without one these are /tf and /tf_static.
        remappings=[("/tf", "tf"), ("/tf_static", "tf_static")],
    )
    return [node]
