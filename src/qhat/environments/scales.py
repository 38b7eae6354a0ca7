"""Scores that have a meaning in an environment: chance, and what counts as solved."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# A task of dm_control rewards every one of its 1,000 steps with 0 to 1 (arXiv:1801.00690, section 2).
CONTROL = (
    "AcrobotSwingup-v1", "BallInCupCatch-v1", "CartpoleBalance-v1", "CartpoleSwingup-v1", "CheetahRun-v1",
    "FingerSpin-v1", "FingerTurnEasy-v1", "FingerTurnHard-v1", "FishSwim-v1", "HopperHop-v1",
    "HopperStand-v1", "HumanoidRun-v1", "HumanoidStand-v1", "HumanoidWalk-v1", "PendulumSwingup-v1",
    "QuadrupedRun-v1", "QuadrupedWalk-v1", "ReacherEasy-v1", "ReacherHard-v1", "WalkerRun-v1",
    "WalkerStand-v1", "WalkerWalk-v1",
)  # fmt: skip
"""dm_control's, by EnvPool's names."""

SCALES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        # A uniformly random policy's mean over 1,000 episodes, and Gymnasium's reward_threshold.
        "CartPole-v1": (22.7, 475.0),
        "Acrobot-v1": (-499.2, -100.0),
        "MountainCar-v0": (-200.0, -110.0),
        "LunarLander-v3": (-175.2, 200.0),
        **dict.fromkeys(CONTROL, (0.0, 1000.0)),
    }
)
"""Chance and solved, by the name of the reference, or of the environment where that has none."""

LARGEST: Mapping[str, float] = MappingProxyType(
    {
        # One per step, until the time limit.
        "CartPole-v1": 500.0,
        "CartPole-v0": 200.0,
        # One for the goal.
        "FrozenLake-v1": 1.0,
        **dict.fromkeys(CONTROL, 1000.0),
    }
)
"""Largest possible score of an episode, by the same names, where it follows from the rewards."""


def largest_score(env: str, reference: str | None = None) -> float | None:
    """Return the largest possible score of an episode; `None` if it is not known."""
    return LARGEST.get(reference or env.rpartition(":")[2])
