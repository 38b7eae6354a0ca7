"""A task's mirror image: under it, what is right for the left leg is right for the right one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from qhat.axes.actions import Actions
from qhat.system.errors import require


class Swapped(NamedTuple):
    """What becomes of choices."""

    factors: tuple[int, ...]
    """Factor f takes over the choice of factor `factors[f]`,"""
    choices: tuple[tuple[int, ...], ...]
    """as `choices[f][choice]`."""


@dataclasses.dataclass(frozen=True)
class Mirror:
    """A reflection that leaves a task the same task (Mittal et al. 2024, arXiv:2403.04359).

    Number i of a mirrored observation is number `observation[i]` times `signs[i]`. For joints, the mirrored
    command of joint f is that of joint `joints[f]` times `joint_signs[f]`; for a discrete action,
    `actions[a]` is the mirror image of action a.

    Raises:
        UsageError: done twice, it is not what was there before.
    """

    observation: tuple[int, ...]
    """Where each number of the image comes from."""
    signs: tuple[float, ...]
    """What it is multiplied by."""
    joints: tuple[int, ...] = ()
    """Where each joint's command comes from."""
    joint_signs: tuple[float, ...] = ()
    """What it is multiplied by."""
    actions: tuple[int, ...] = ()
    """The image of each discrete action."""

    def __post_init__(self) -> None:
        for name, places, signs in (
            ("observation", self.observation, self.signs),
            ("joints", self.joints, self.joint_signs),
            ("actions", self.actions, (1.0,) * len(self.actions)),
        ):
            twice = len(places) == len(signs) and sorted(places) == list(range(len(places)))
            twice = twice and all(
                places[places[i]] == i and signs[i] * signs[places[i]] == 1 for i in range(len(places))
            )
            require(twice, f"A mirror's {name} {places} with signs {signs}, done twice, are no identity.")

    @staticmethod
    def of(
        size: int,
        *,
        swaps: Sequence[tuple[int, int]] = (),
        flips: Sequence[int] = (),
        actions: Sequence[int] = (),
        joint_swaps: Sequence[tuple[int, int]] = (),
        joint_flips: Sequence[int] = (),
        joints: int = 0,
    ) -> Mirror:
        """Make one of what is swapped, and of what changes its sign.

        Args:
            size: numbers of an observation.
            joints: how many there are.
        """
        return Mirror(
            _swapped(size, swaps), _signs(size, flips), _swapped(joints, joint_swaps),
            _signs(joints, joint_flips), tuple(actions),
        )  # fmt: skip

    def swapped(self, actions: Actions, shape: tuple[int, ...], env_id: str) -> Swapped:
        """Return what becomes of choices.

        Raises:
            UsageError: observations have another size, or a mirrored command is none of its joint's.
        """
        require(
            shape == (len(self.observation),),
            f"'{env_id}' has observations {shape}, and its mirror {len(self.observation)} numbers.",
        )
        if actions.commands is None:
            require(
                actions.factors == 1 and len(self.actions) == actions.choices[0],
                f"'{env_id}' has the actions {actions}; its mirror image names {len(self.actions)}.",
            )
            return Swapped((0,), (self.actions,))
        require(
            len(self.joints) == actions.factors,
            f"'{env_id}' has {actions.factors} joints; its mirror image has {len(self.joints)}.",
        )
        rows = []
        for joint, (other, sign) in enumerate(zip(self.joints, self.joint_signs, strict=True)):
            there, wanted = np.array(actions.commands[joint]), sign * np.array(actions.commands[other])
            near = np.abs(there[None] - wanted[:, None])
            reach = float(np.ptp(there)) or 1.0
            require(
                len(there) == len(wanted) and bool((near.min(axis=1) < 1e-3 * reach).all()),
                f"Joint {joint} of '{env_id}' has the commands {there.tolist()}, and the mirror images of"
                f" joint {other}'s are {wanted.tolist()}; expected the same ones.",
            )
            row = near.argmin(axis=1).tolist()
            rows.append((*row, *range(len(row), actions.width)))
        return Swapped(self.joints, tuple(rows))


Image = tuple[Mirror, Swapped]
"""A mirror, and what becomes of an environment's choices."""


def _swapped(size: int, swaps: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    places = list(range(size))
    for one, other in swaps:
        places[one], places[other] = other, one
    return tuple(places)


def _signs(size: int, flips: Sequence[int]) -> tuple[float, ...]:
    return tuple(-1.0 if index in set(flips) else 1.0 for index in range(size))


def image_of(wanted: bool, spec: Any) -> Image | None:
    """Return the mirror image of an environment, if a recipe learns from it.

    Args:
        spec: of the environment.

    Raises:
        UsageError: it is wanted and not known, or the environment's commands are not their own image.
    """
    if not wanted:
        return None
    require(
        spec.mirror is not None,
        f"'{spec.id}' does not say what its mirror image is; leave mirror out. A JaxEnvironment says it"
        " with mirror = qhat.Mirror.of(...), and robots of mjlab and Isaac Lab by the names of their joints"
        " and terms, where all of them are known (docs/concepts/mirror.md).",
    )
    return spec.mirror, spec.mirror.swapped(spec.actions, spec.shape, spec.id)
