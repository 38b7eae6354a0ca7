"""What the node does, without ROS: messages to an observation, an action to a speed, and when to stop.

Pure Python and NumPy. The task and the messages are in task.py, scans in scan.py, the robot's outline and
what is too near to it in body.py, what stands around it in surroundings.py, the way out in recovery.py,
and what the wheels get in driver.py.
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
