"""`ros2 launch qhat_turtlebot3 drive.launch.py goal:="1.0, 0.5"`."""

# launch and launch_ros come with ROS 2.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(__file__).parent.parent / "config" / "params.yaml"
ARGUMENTS = {
    "params_file": (str(CONFIG), "parameters of the node"),
    "goal": (
        "",
        "goal in metres, in the frame of the odometry: '1.0, 0.5'; empty: wait for the topic",
    ),
    "use_sim_time": ("false", "whether to use a simulation's clock"),
}


def generate_launch_description() -> LaunchDescription:
    """Return the description of the launch."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=what)
        for name, (default, what) in ARGUMENTS.items()
    ]
    given = {
        "goal": ParameterValue(LaunchConfiguration("goal"), value_type=str),
        "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
    }
    node = Node(
        package="qhat_turtlebot3",
        executable="drive",
        name="qhat_turtlebot3",
        output="screen",
        parameters=[LaunchConfiguration("params_file"), given],
    )
    return LaunchDescription([*declared, node])
