"""Goals in replay: where an observation has them, and which steps belong to one episode."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from qhat.axes.relabel import Relabel
from qhat.environments.observations import Observations
from qhat.environments.wrapper import RewardWrapper
from qhat.system.errors import UsageError, require, setting

ROUNDING = 0.01
"""Share of the steps at a goal that rounding may take for others."""
ACHIEVED, DESIRED = "achieved_goal", "desired_goal"
"""Keys of an observation, those of Gymnasium-Robotics' `GoalEnv`."""


class Goals(eqx.Module):
    """What replay knows of goals, beside the observations that contain them."""

    first: Int[Array, " N"]
    """Row of the first step of the row's episode."""
    last: Int[Array, " N"]
    """At an episode's first step: row of its latest one."""
    ended: Int[Array, ""]
    """Number of steps that reached their goal and ended an episode."""
    passed: Int[Array, ""]
    """Number of those that reached it and did not."""
    steps: Int[Array, ""]
    """Number of rewards that were compared with the rule's."""
    wrong: Int[Array, ""]
    """Number of those that had another reward."""
    example: Float[Array, " 3"]
    """Of the first of them: the distance to the goal, the reward, and the rule's reward."""
    achieved: tuple[int, int] = eqx.field(static=True)
    """Where an observation has its achieved goal: begin and end."""
    desired: tuple[int, int] = eqx.field(static=True)
    rule: Relabel = eqx.field(static=True)
    rewards: tuple[RewardWrapper, ...] = eqx.field(static=True, default=())
    """Changes of a reward before it is stored."""

    @staticmethod
    def of(
        rule: Relabel, size: int, layout: Observations | None, rewards: tuple[RewardWrapper, ...] = ()
    ) -> Goals | None:
        """Return what is known before the first step; `None` where no goal is ever changed.

        Raises:
            UsageError: observations have no goals.
        """
        if not rule.happens:
            return None
        places = goal_places(layout)
        rows, zero = jnp.zeros(size, jnp.int32), jnp.int32(0)
        return Goals(rows, rows, zero, zero, zero, zero, jnp.zeros(3), *places, rule, rewards)

    @property
    def ends(self) -> Bool[Array, ""]:
        """Whether an episode ends at its goal: then relabelled steps that reach theirs are terminal."""
        # At the goal's edge, rounding tells whether a step reached it.
        return self.passed < ROUNDING * self.ended

    def see(
        self,
        observation: Float[Array, "E D"],
        reward: Float[Array, " E"],
        successor: Float[Array, "E D"],
        terminated: Bool[Array, " E"],
        real: Bool[Array, " E"],
        fresh: Bool[Array, " E"],
        cursor: Int[Array, " E"],
    ) -> Goals:
        """Take in one step of every environment; the other arguments are fields of `Step`.

        Args:
            fresh: whether it is the first of an episode.
            cursor: rows in which replay stores it.
        """
        rows = self.first.shape[0] // cursor.shape[0]
        base, size = jnp.arange(cursor.shape[0]) * rows, self.first.shape[0]
        begun = jnp.where(fresh, cursor, self.first[base + (cursor - 1) % rows])
        achieved = successor[:, slice(*self.achieved)]
        desired = observation[:, slice(*self.desired)]
        reached, rule = self.rule.reached(achieved, desired), self.reward(achieved, desired)
        largest = jnp.maximum(jnp.abs(rule), jnp.abs(reward))
        differs = real & (jnp.abs(rule - reward) > 1e-3 * largest + 1e-6)
        at = jnp.argmax(differs)
        distance = jnp.sqrt(jnp.sum(jnp.square(achieved - desired), axis=-1))
        met = jnp.stack([distance[at], reward[at], rule[at]])
        return dataclasses.replace(
            self,
            first=self.first.at[jnp.where(real, base + cursor, size)].set(begun, mode="drop"),
            last=self.last.at[jnp.where(real, base + begun, size)].set(cursor, mode="drop"),
            ended=self.ended + jnp.sum(real & reached & terminated),
            passed=self.passed + jnp.sum(real & reached & ~terminated),
            steps=self.steps + jnp.sum(real),
            wrong=self.wrong + jnp.sum(differs),
            example=jnp.where((self.wrong == 0) & differs.any(), met, self.example),
        )

    def reward(self, achieved: Float[Array, "*B G"], desired: Float[Array, "*B G"]) -> Float[Array, "*B"]:
        """Return the reward that replay would store."""
        reward = self.rule.reward(achieved, desired)
        for part in self.rewards:
            reward = part.learned(reward.ravel()).reshape(reward.shape)
        return reward

    def best_reward(self, successor: Float[Array, "E D"]) -> Float[Array, " E"]:
        """Return the reward of steps that achieved their goal: relabelled steps have it."""
        achieved = successor[:, slice(*self.achieved)]
        return self.reward(achieved, achieved)

    def left(self, slots: Int[Array, " B"], rows: int) -> Int[Array, " B"]:
        """Return the number of later steps of a slot's episode; negative if its beginning is overwritten.

        The new episode that begins where an old one began has not come as far as the slot: it is shorter.
        """
        base, first = slots // rows * rows, self.first[slots]
        return (self.last[base + first] - first) % rows - (slots - base - first) % rows


def goal_places(layout: Observations | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return where an observation has its achieved and its desired goal.

    Raises:
        UsageError: it has none, or more than numbers of one step.
    """
    entries = () if layout is None else layout.entries
    by_name = {entry.path[0]: entry for entry in entries if len(entry.path) == 1}
    relabel = setting("relabel", "hindsight")
    require(
        ACHIEVED in by_name and DESIRED in by_name,
        f"{relabel} needs observations with '{ACHIEVED}' and '{DESIRED}', as those of Gymnasium-Robotics'"
        f" goal environments; these have {_named(entries)}. Expected"
        f" {setting('relabel', 'none')}, or another recipe.",
    )
    assert layout is not None, "it has entries"
    require(
        not layout.frames and not layout.pictures,
        f"{relabel} takes goals that are numbers, in observations of one step; these are"
        f" {'stacked' if layout.frames else 'pictures'}. Leave"
        f" {setting('wrap', 'frame_stack') if layout.frames else setting('relabel')} out.",
    )
    sizes = [by_name[name].size for name in (ACHIEVED, DESIRED)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"{relabel} cannot compare '{ACHIEVED}', {sizes[0]} numbers, with '{DESIRED}', {sizes[1]}."
        )
    begins, at = {}, 0
    for entry in entries:
        begins[entry] = at
        at += entry.size
    achieved, desired = (begins[by_name[name]] for name in (ACHIEVED, DESIRED))
    return (achieved, achieved + sizes[0]), (desired, desired + sizes[1])


def _named(entries: Any) -> str:
    names = [f"'{entry.label}'" for entry in entries if entry.path]
    return ", ".join(names) if names else "one array"
