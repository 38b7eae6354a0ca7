"""The textbook chapter's classes and functions under its names, for its scripts: they run on `qhat.Agent`.

Change a script's import lines, and nothing else:

    import gymnasium as gym
    from qhat.chapter import RainbowDQN, evaluate_agent, plot_training_progress

docs/from-the-chapter.md says what is different, and why.
"""

from __future__ import annotations

from qhat.chapter.agents import DoubleDQN, DQNAgent, PERDQNAgent, RainbowDQN
from qhat.chapter.memory import PERMemory, SumTree
from qhat.chapter.networks import DQN, DuelingDQN
from qhat.chapter.script import evaluate_agent, plot_training_progress, train_dqn_robot_example

__all__ = [
    "DQN",
    "DQNAgent",
    "DoubleDQN",
    "DuelingDQN",
    "PERDQNAgent",
    "PERMemory",
    "RainbowDQN",
    "SumTree",
    "evaluate_agent",
    "plot_training_progress",
    "train_dqn_robot_example",
]
