"""A robot's mirror image, by the names of its joints and of its observation's terms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from qhat.environments.mirror import Mirror
from qhat.environments.term import Term

SIDES = (
    ("left", "right"), ("FL", "FR"), ("RL", "RR"), ("HL", "HR"), ("BL", "BR"), ("LF", "RF"), ("LH", "RH"),
    ("LB", "RB"), ("L", "R"),
)  # fmt: skip
"""What is in the names of joints of one side, and of the other; whole words, in any case."""
ACROSS = re.compile(r"roll|yaw|haa|abad|abduct|_hx|torso")
"""Joints around an axis that is not the one from left to right: their sign changes."""
ALONG = re.compile(r"pitch|hfe|kfe|_hy|_kn|knee|thigh|calf|shank|elbow")
"""Joints around that axis."""
LATERAL = re.compile(r"^(f|r|h|b)?(l|r)(f|h|b)?_hip(_joint)?$", re.IGNORECASE)
"""A quadruped's hip, which has no other name, moves its leg sideways."""
VECTORS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "base_lin_vel": (1, -1, 1), "base_ang_vel": (-1, 1, -1), "projected_gravity": (1, -1, 1),
        "velocity_commands": (1, -1, -1), "command": (1, -1, -1), "twist": (1, -1, -1),
    }
)  # fmt: skip
"""Signs of mirrored velocities, rotations, directions, and commands (forward, sideways, turning)."""
JOINTS = ("joint_pos", "joint_vel", "joint_pos_rel", "joint_vel_rel", "actions", "last_action", "joint_acc")
"""Terms with a number for each joint."""


def mirror_of(
    terms: Sequence[Term], joints: Sequence[str], drives: Sequence[tuple[float, float]] = ()
) -> Mirror | None:
    """Return the image in the plane from front to back.

    Args:
        joints: names of the joints, in the order of the actions and of the terms that have one for each.
        drives: scale and offset of each joint's position, where they are known.

    Returns:
        `None` where a name says too little, or the default pose is not its own image by what names say.
    """
    pairs = _pairs(joints)
    if pairs is None or not terms:
        return None
    partners, signs = pairs
    for (scale, offset), other, sign in zip(drives, partners, signs, strict=False):
        if abs(drives[other][0] - scale) > 1e-4 or abs(sign * drives[other][1] - offset) > 1e-3:
            return None
    places: list[int] = []
    flips: list[float] = []
    for term in terms:
        name = term.name.rpartition(".")[2]
        if name in VECTORS and term.size == len(VECTORS[name]):
            order, turned = tuple(range(term.size)), VECTORS[name]
        elif name in JOINTS and term.size == len(joints):
            order, turned = partners, signs
        else:
            return None
        scales = (term.scale * term.size)[: term.size]
        even = term.clip is None or term.clip[0] == -term.clip[1]
        if not even or any(scales[one] != scales[other] for one, other in enumerate(order)):
            return None
        for _ in range(term.history):
            first = len(places)
            places += [first + other for other in order]
            flips += turned
    return Mirror(tuple(places), tuple(map(float, flips)), partners, signs)


def _pairs(joints: Sequence[str]) -> tuple[tuple[int, ...], tuple[float, ...]] | None:
    """Return the joint on the other side of each, and whether its sign changes."""
    partners: list[int] = []
    signs: list[float] = []
    for name in joints:
        other = _other_side(name)
        if other not in joints:
            return None
        lower = name.lower()
        across = bool(ACROSS.search(lower) or LATERAL.match(name))
        if across == bool(ALONG.search(lower)):
            return None
        partners.append(list(joints).index(other))
        signs.append(-1.0 if across else 1.0)
    return (tuple(partners), tuple(signs)) if joints else None


def _other_side(name: str) -> str:
    """Return the name of the joint on the other side; one in the middle is its own."""
    for one, other in SIDES:
        for there, back in ((one, other), (other, one)):
            for case in (str.lower, str.upper, str.capitalize):
                word = rf"(?<![A-Za-z]){case(there)}(?![A-Za-z])"
                if re.search(word, name):
                    return re.sub(word, case(back), name)
    return name


LEGS = ("FR", "FL", "RR", "RL")
_GO1_JOINTS = tuple(f"{leg}_{joint}" for leg in LEGS for joint in ("hip", "thigh", "calf"))


def _go1(privileged: bool, state: bool) -> Mirror:
    """Return the image of MuJoCo Playground's Go1 with a joystick, which names no terms."""
    pairs = _pairs(_GO1_JOINTS)
    assert pairs is not None
    along, turn, feet = VECTORS["base_lin_vel"], VECTORS["base_ang_vel"], ((1, 0, 3, 2), (1.0,) * 4)
    joints, fixed = pairs, (0, 1, 2)
    # Velocity, rotation, gravity; angles, their rates, the last action; the command.
    sensed = [(fixed, along), (fixed, turn), (fixed, along), *[joints] * 3, (fixed, VECTORS["command"])]
    steps = tuple(3 * foot + axis for foot in feet[0] for axis in range(3))
    # Rotation, acceleration, gravity, velocity, rotation in the world; angles, their rates, torques; of the
    # feet contacts, velocities, times in the air; a push, and whether it is due.
    more = [
        (fixed, turn), (fixed, along), (fixed, along), (fixed, along), (fixed, turn), *[joints] * 3,
        feet, (steps, along * 4), feet, (fixed, along), ((0,), (1.0,)),
    ]  # fmt: skip
    parts = [*([*sensed, *more] if privileged else []), *(sensed if state else [])]
    places: list[int] = []
    signs: list[float] = []
    for order, flips in parts:
        first = len(places)
        places += [first + other for other in order]
        signs += flips
    return Mirror(tuple(places), tuple(map(float, signs)), *pairs)


GO1: Mapping[int, Mirror] = MappingProxyType(
    {48: _go1(False, True), 123: _go1(True, False), 171: _go1(True, True)}
)
"""By the size of its observation: the robot's own sensors (`state`), `privileged_state`, and both."""


def known_mirror(name: str, shape: tuple[int, ...]) -> Mirror | None:
    """Return the image of a task that has no names for joints and terms."""
    return GO1.get(shape[0]) if "Go1Joystick" in name and len(shape) == 1 else None
