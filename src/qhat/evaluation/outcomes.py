"""What whole episodes brought, added up while they are played: in a compiled program, and with NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from qhat.axes.actions import Actions


class Played(NamedTuple):
    """One episode of every copy, `[..., E]` each."""

    returns: Any
    """Undiscounted."""
    lengths: Any
    """Steps."""
    attempts: Any
    """Tries at the task's goal that ended; 0 in a task that does not report success."""
    successes: Any
    """Those that reached it."""
    saturated: Any
    """`[..., E, F]`, steps at which a joint's command was its lowest or its highest; 0 where actions are no
    commands."""
    moved: Any
    """Sum over the steps of |Δ command|, mean over the joints, in the environment's units."""
    broken: Any
    """1 where a number that was not finite ended the episode; it counts with what it had until then."""
    cut: Any
    """1 where the evaluation ended before the episode did; it counts with what it had until then."""

    @staticmethod
    def nothing(shape: tuple[int, ...], factors: int, xp: Any) -> Played:
        """Before the first step of `shape` copies."""
        zeros, whole = xp.zeros(shape, "float32"), xp.zeros(shape, "int32")
        return Played(zeros, whole, whole, whole, xp.zeros((*shape, factors), "int32"), zeros, whole, whole)

    def add(
        self,
        step: Any,
        playing: Bool[Any, "*lead E"],
        action: Int[Any, "*lead E F"],
        before: Int[Any, "*lead E F"],
        actions: Actions,
        xp: Any,
    ) -> Played:
        """Add a step of the copies that are still `playing`.

        Args:
            step: `Timestep`.
            before: actions of the step before; of the first step its own.
        """
        counts, broken = playing & step.real, self.broken
        if step.broken is not None:
            broken = broken + (playing & step.broken)
        attempts, successes, saturated, moved = self.attempts, self.successes, self.saturated, self.moved
        if step.success is not None:
            attempts = attempts + (counts & ~xp.isnan(step.success))
            successes = successes + (counts & (step.success > 0))
        if actions.commands is not None:
            last = xp.asarray(actions.choices) - 1
            saturated = saturated + (counts[..., None] & ((action == 0) | (action == last)))
            table, joints = xp.asarray(actions.table, "float32"), np.arange(actions.factors)
            change = xp.abs(table[joints, action] - table[joints, before]).mean(axis=-1)
            moved = moved + xp.where(counts, change, 0.0)
        return Played(
            self.returns + xp.where(counts, step.scored, 0.0),
            self.lengths + counts,
            attempts,
            successes,
            saturated,
            moved,
            broken,
            self.cut,
        )

    def ended(self, playing: Bool[Any, "*lead E"]) -> Played:
        """Return it as it is at the end; what is still `playing` was cut."""
        return self._replace(cut=np.asarray(playing).astype("int32"))

    def success_rate(self, axis: int | None = None) -> Any:
        """Share of the attempts that succeeded, over `axis` or all; NaN where there was none."""
        attempts = np.asarray(self.attempts).sum(axis=axis)
        with np.errstate(invalid="ignore"):
            return np.asarray(self.successes).sum(axis=axis) / attempts

    def saturation(self) -> np.ndarray:
        """`[..., F]`, share of the steps at which each joint's command was one of its bounds."""
        steps = np.asarray(self.lengths).sum(axis=-1)[..., None]
        return np.asarray(self.saturated).sum(axis=-2) / np.maximum(steps, 1)

    def smoothness(self, axis: int | None = None) -> Any:
        """Mean |Δ command| from step to step, in the environment's units: 0 is smoothest."""
        return np.asarray(self.moved).sum(axis=axis) / np.maximum(
            np.asarray(self.lengths).sum(axis=axis), 1
        )
