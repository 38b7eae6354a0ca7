"""The logic of the node, without ROS: from messages to an observation, from an action to a velocity.

It needs only Python and NumPy. task.py has the task and the messages, scan.py the scans, body.py the
robot's outline and the distance to obstacles, surroundings.py the obstacles around it, recovery.py the way
out, and driver.py the choice of the velocity.
"""

from .body import ROBOTS, Body, Guard, body_of
from .driver import Driver
from .scan import Look, ScanReader, observation_of
from .task import STOP, Command, Pose, Task, UnusableError, goal_of, pose_of, wrap

__all__ = [
    "ROBOTS",
    "STOP",
    "Body",
    "Command",
    "Driver",
    "Guard",
    "Look",
    "Pose",
    "ScanReader",
    "Task",
    "UnusableError",
    "body_of",
    "goal_of",
    "observation_of",
    "pose_of",
    "wrap",
]
