"""qhat's own robots for Gymnasium: importing this module registers them.

import qhat.robots
env = gymnasium.make("qhat/TurtleBot3-v0")      # or, without the import: "qhat.robots:qhat/TurtleBot3-v0"
"""

import gymnasium

# Registered without Gymnasium's time limit: the environment itself says when an episode is cut.
gymnasium.register("qhat/TurtleBot3-v0", "qhat.environments.turtlebot3.gym:TurtleBot3")
