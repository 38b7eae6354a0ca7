"""What the numbers of an environment are called: by its class, or by its documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# (observations as "name unit", actions) of environments that have this in their documentation only.
_LANDER = ("do nothing", "left engine", "main engine", "right engine")
KNOWN: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "CartPole": (
        ("cart_position m", "cart_velocity m/s", "pole_angle rad", "pole_velocity rad/s"),
        ("push left", "push right"),
    ),
    "MountainCar": (("position", "velocity"), ("left", "none", "right")),
    "Acrobot": (
        ("cos_1", "sin_1", "cos_2", "sin_2", "velocity_1 rad/s", "velocity_2 rad/s"),
        ("-1 N·m", "0 N·m", "+1 N·m"),
    ),
    "Pendulum": (("cos", "sin", "velocity rad/s"), ()),
    "LunarLander": (
        ("x", "y", "velocity_x", "velocity_y", "angle rad", "angular_velocity", "left_leg", "right_leg"),
        _LANDER,
    ),
    "TurtleBot3": (
        (*(f"lidar_{beam} m" for beam in range(24)), "goal_bearing rad", "goal_distance m"),
        tuple(f"0.15 m/s, {turn:+g} rad/s" for turn in (1.5, 0.75, 0.0, -0.75, -1.5)),
    ),
}


def known_names(env_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of an environment's observations, with units, and actions; empty if unknown."""
    return KNOWN.get(env_id.rpartition(":")[2].rpartition("/")[2].rpartition("-v")[0], ((), ()))


def metadata_of(env_id: str) -> Mapping[str, Any]:
    """Return what the class of a Gymnasium environment says in `metadata`; nothing is made."""
    import gymnasium
    from gymnasium.envs.registration import load_env_creator

    found = gymnasium.registry.get(env_id.rpartition(":")[2])
    if found is None or found.entry_point is None:
        return {}
    made = found.entry_point
    try:
        creator = load_env_creator(made) if isinstance(made, str) else made
    except (ImportError, AttributeError):
        return {}
    metadata = getattr(creator, "metadata", None)
    return metadata if isinstance(metadata, Mapping) else {}
