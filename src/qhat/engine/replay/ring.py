"""Replay: one ring of single steps per environment, each observation (each frame of a stack) stored once.

An episode of L steps takes L + 1 rows: its L acted-on observations, then its true last observation
in a row that is no start. The successor of a start is therefore always a later row of the same
episode, whatever the environment's autoreset does, and never the next episode's first observation.
With `links`, one ring holds several streams, and rows need not follow each other: see links.py.
Stacks of K frames take L + K rows of one frame: see frames.py.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from qhat.axes.actions import Actions
from qhat.axes.heads.outlook import Outlook
from qhat.axes.sampler import Sampler
from qhat.engine.replay import frames
from qhat.engine.replay.goals import Goals
from qhat.engine.replay.links import Links, walk
from qhat.engine.replay.moments import Moments
from qhat.engine.replay.nstep import CONTINUES, NOTHING, TERMINATED, TRUNCATED, Window, n_step
from qhat.engine.replay.reward_scale import RewardScale
from qhat.engine.replay.transitions import Step, Transition
from qhat.environments.observations import Observations

REDRAWS = 64


class Ring(eqx.Module):
    """E rings of `rows` rows, flattened to `[E·rows, ...]`. A value."""

    observation: Array
    """`[N, ...]`; of stacked frames only the newest, `[N, c, ...]`."""
    action: Array
    reward: Float[Array, " N"]
    kind: UInt8[Array, " N"]
    """NOTHING, CONTINUES, TERMINATED or TRUNCATED: what the step in this row led to."""
    cursor: Int[Array, " E"]
    """Row that the next step of each environment goes to."""
    filled: Int[Array, " E"]
    """Rows in use of each environment."""
    rows: int = eqx.field(static=True)
    stack: int = eqx.field(static=True, default=1)
    """K, the number of frames in an observation, along its first axis."""
    legal: Bool[Array, "N F C"] | None = None
    """Legal actions at the row's observation, in an environment with masks."""
    outlook: Outlook | None = None
    """Ranges of the rewards and returns stored so far, if the head needs them."""
    moments: Moments | None = None
    """Statistics of the observations stored so far, if the recipe normalises them."""
    greedy: Bool[Array, " M"] | None = None
    """Whether the row's action was as good as the greedy one when an update last used the row; false
    before. Stored if n-step returns end at actions that are not. Those of `logged` follow."""
    layout: Observations | None = eqx.field(static=True, default=None)
    """The parts of an observation; statistics are of its numbers only."""
    links: Links | None = None
    """Links between the rows of an `Agent`'s ring; without links, a row leads to the row after it."""
    goals: Goals | None = None
    """What is known of episodes and their goals, if the recipe relabels steps."""
    memory: Float[Array, "N M"] | None = None
    """State of the network's memory that the row's observation met, if it has one."""
    scale: RewardScale | None = None
    """Spread of the returns stored so far, if steps are learned from one by one."""
    logged: "Ring | None" = None
    """Steps that were recorded before the run and stay, beside its steps: see shares.py."""

    @staticmethod
    def empty(
        num_envs: int,
        rows: int,
        shape: tuple[int, ...],
        dtype: Any,
        actions: Actions,
        *,
        stack: int = 1,
        masked: bool = False,
        watch: float | None = None,
        normalise: bool = False,
        marks_greedy: bool = False,
        layout: Observations | None = None,
        goals: Goals | None = None,
        memory: int = 0,
        scale: float | None = None,
        logged: int = 0,
    ) -> "Ring":
        """Allocate `num_envs` rings. Observations keep their `dtype`.

        Args:
            stack: number of frames in an observation, along its first axis; each is stored once.
            masked: whether every observation comes with a mask of legal actions.
            watch: discount of the returns whose ranges `outlook` records; `None` records nothing.
            normalise: whether to record `moments`.
            marks_greedy: whether to record `greedy`.
            layout: the parts of an observation.
            goals: `Goals.of` this ring's size.
            memory: numbers of a state of the network's memory; 0 stores none.
            scale: discount of the returns whose spread `scale` records; `None` records nothing.
            logged: rows for steps that were recorded before the run; 0 is a ring without `logged`.
        """
        size, beside = num_envs * rows, None
        if logged:
            beside = Ring.empty(1, logged, shape, dtype, actions, stack=stack, masked=masked, layout=layout)
        return Ring(
            observation=jnp.zeros((size, *frames.frame_shape(shape, stack)), dtype),
            action=jnp.zeros((size, actions.factors), jnp.int32),
            reward=jnp.zeros(size, jnp.float32),
            kind=jnp.zeros(size, jnp.uint8),
            cursor=jnp.zeros(num_envs, jnp.int32),
            filled=jnp.zeros(num_envs, jnp.int32),
            rows=rows,
            stack=stack,
            legal=jnp.ones((size, actions.factors, actions.width), bool) if masked else None,
            outlook=None if watch is None else Outlook.empty(num_envs, watch),
            greedy=jnp.zeros(size + (1 + logged if logged else 0), bool) if marks_greedy else None,
            moments=Moments.of(shape, layout) if normalise else None,
            layout=layout,
            goals=goals,
            memory=jnp.zeros((size, memory)) if memory else None,
            scale=None if scale is None else RewardScale.empty(scale),
            logged=beside,
        )

    @property
    def size(self) -> int:
        """Number of slots of all environments."""
        return self.cursor.shape[0] * self.rows

    def _slots(self, row: Int[Array, "*W E"]) -> Int[Array, "*W E"]:
        return jnp.arange(self.cursor.shape[0]) * self.rows + row % self.rows

    def before(self, rows: Int[Array, " W"]) -> Int[Array, "W E"]:
        """Return the slots that are `rows` rows before the last one of every environment."""
        return self._slots(self.cursor - 1 - rows[:, None])

    def ahead(self, slots: Int[Array, "..."], steps: Int[Array, "..."]) -> Int[Array, "..."]:
        """Return the slot that is `steps` rows later in the ring of the same environment."""
        first = slots // self.rows * self.rows
        return first + (slots - first + steps) % self.rows


def store(ring: Ring, step: Step) -> tuple[Ring, Int[Array, " M"], Bool[Array, " M"]]:
    """Append one step per environment.

    Returns:
        the ring, the slots that were written, and which of them are starts.
    """
    K, size = ring.stack, ring.size
    ended = step.terminated | step.truncated
    kind = jnp.where(step.terminated, TERMINATED, jnp.where(step.truncated, TRUNCATED, CONTINUES))
    first = ring.kind[ring._slots(ring.cursor - 1)] != CONTINUES
    rows, keep = frames.rows_of_a_step(K, first)
    every = jnp.where(keep | ~step.real, size, ring._slots(ring.cursor + rows))
    kinds = jnp.full(every.shape, NOTHING).at[K - 1].set(kind).astype(jnp.uint8)
    slots, start, written = every.ravel(), every[K - 1], every[: K + 1].ravel()
    advance = step.real * (1 + ended + first * (K - 1))
    newest = frames.split(step.successor, K)[-1:]
    observations = jnp.concatenate([frames.split(step.observation, K), newest])
    legal, outlook, moments = ring.legal, ring.outlook, ring.moments
    if legal is not None and step.legal is not None and step.legal_next is not None:
        both = jnp.concatenate([step.legal, step.legal_next])
        legal = legal.at[every[K - 1 : K + 1].ravel()].set(both, mode="drop")
    goals = ring.goals
    if goals is not None:
        values = (step.observation, step.reward, step.successor, step.terminated, step.real)
        goals = goals.see(*values, first, ring.cursor)
    if outlook is not None:
        outlook = outlook.see(step.reward, ended, step.real)
        if goals is not None:
            outlook = outlook.widened(jnp.zeros(2), goals.best_reward(step.successor))
    if moments is not None:
        whole = jnp.concatenate([step.observation, step.successor])
        if ring.layout is not None:
            whole = ring.layout.shown(whole)[1]
        moments = moments.see(whole, jnp.concatenate([step.real, step.real & ended]))
    scale = ring.scale
    if scale is not None and ring.scale is not None:
        fits = True if moments is None else moments.finite
        scale = scale.see(step.reward[0], ended[0], step.real[0], fits)
        kept = fits & (scale.refused == ring.scale.refused)
        moments = jax.tree.map(lambda new, old: jnp.where(kept, new, old), moments, ring.moments)
    ring = dataclasses.replace(
        ring,
        observation=ring.observation.at[written].set(
            observations.reshape(-1, *observations.shape[2:]).astype(ring.observation.dtype), mode="drop"
        ),
        action=ring.action.at[start].set(step.action, mode="drop"),
        reward=ring.reward.at[start].set(step.reward, mode="drop"),
        kind=ring.kind.at[slots].set(kinds.ravel(), mode="drop"),
        cursor=(ring.cursor + advance) % ring.rows,
        filled=jnp.minimum(ring.filled + advance, ring.rows),
        legal=legal,
        outlook=outlook,
        moments=moments,
        greedy=None if ring.greedy is None else ring.greedy.at[start].set(False, mode="drop"),
        goals=goals,
        memory=None if ring.memory is None else ring.memory.at[start].set(step.memory, mode="drop"),
        scale=scale,
    )
    return ring, slots, kinds.ravel() != NOTHING


def cut(ring: Ring, where: Bool[Array, " E"] | bool = True) -> Ring:
    """End open episodes as truncated: the next step does not continue the last one."""
    last = ring._slots(ring.cursor - 1)
    is_open = (ring.kind[last] == CONTINUES) & where
    return dataclasses.replace(
        ring,
        kind=ring.kind.at[jnp.where(is_open, last, ring.size)].set(TRUNCATED, mode="drop"),
        cursor=(ring.cursor + is_open) % ring.rows,
        filled=jnp.minimum(ring.filled + is_open, ring.rows),
        outlook=None if ring.outlook is None else ring.outlook.cut(where),
        scale=ring.scale and ring.scale.cut(jnp.any(where)),
    )


def view(
    ring: Ring,
    slots: Int[Array, " B"],
    n: int,
    gamma: float | Float[Array, ""],
    limit: Int[Array, ""] | None = None,
) -> Window:
    """Build the n-step window of every start; with a `limit`, no longer than that. Fields are `[B]`."""
    links = ring.links
    if links is not None:

        def linked(kinds: Array, steps: Array) -> Window:
            greedy = None if ring.greedy is None else ring.greedy[steps]
            window = n_step(kinds, ring.reward[steps], gamma, greedy, limit)
            last = steps[window.length - 1]
            onward = links.after[last]
            after = ring.ahead(last, onward)
            return dataclasses.replace(window, complete=window.complete & (onward > 0), after=after)

        steps, kinds = walk(links, ring.kind, slots, n, ring.rows)
        return jax.vmap(linked, in_axes=1)(kinds, steps)
    rows = ring.ahead(slots[:, None], jnp.arange(n))
    greedy = None if ring.greedy is None else ring.greedy[rows]
    windows = jax.vmap(n_step, in_axes=(0, 0, None, 0, None))
    return windows(ring.kind[rows], ring.reward[rows], gamma, greedy, limit)


def mark(ring: Ring, slots: Int[Array, " B"], greedy: Bool[Array, " B"] | None) -> Ring:
    """Record which actions at `slots` are as good as the greedy ones; slots out of range are ignored."""
    if ring.greedy is None or greedy is None:
        return ring
    return dataclasses.replace(ring, greedy=ring.greedy.at[slots].set(greedy, mode="drop"))


def look_up(ring: Ring, slots: Int[Array, " B"], window: Window) -> Transition:
    """Return the transitions that begin at `slots`, given the result of `view`."""
    after = ring.ahead(slots, window.length) if window.after is None else window.after
    return Transition(
        observation=_observations(ring, slots),
        action=ring.action[slots],
        reward=window.reward,
        discount=window.discount,
        successor=_observations(ring, after),
        legal=None if ring.legal is None else ring.legal[slots],
        legal_next=None if ring.legal is None else ring.legal[after],
    )


def sample(
    ring: Ring,
    sampler: Sampler,
    state: Any,
    key: Array,
    step: Int[Array, ""],
    *,
    batch: int,
    n: int,
    gamma: float | Float[Array, ""],
    limit: Int[Array, ""] | None = None,
) -> tuple[Transition, Int[Array, " B"], Float[Array, " B"]]:
    """Draw n-step transitions whose windows are complete.

    A draw that is incomplete or no start is repeated, at most `REDRAWS` times; this keeps the
    proportions of the sampler's probabilities. A draw that is still unusable (in a ring that is
    almost empty) gets weight 0 and a slot out of range.

    Args:
        limit: most rewards to sum, 1 to n; `None` is n.

    Returns:
        transitions, their slots, and their importance weights.
    """
    transition, slots, relative, complete = drawn(
        ring, sampler, state, key, batch=batch, n=n, gamma=gamma, limit=limit
    )
    weights = sampler.weights(jnp.where(complete, relative, jnp.inf), step)
    return transition, jnp.where(complete, slots, ring.size), jnp.where(complete, weights, 0.0)


def drawn(
    ring: Ring,
    sampler: Sampler,
    state: Any,
    key: Array,
    *,
    batch: int,
    n: int,
    gamma: float | Float[Array, ""],
    limit: Int[Array, ""] | None = None,
) -> tuple[Transition, Int[Array, " B"], Float[Array, " B"], Bool[Array, " B"]]:
    """Draw as `sample` does; return transitions, their slots, N·P(i), and which of them may be used."""

    def draw(key: Array) -> tuple[Array, Array]:
        return sampler.draw(state, key, batch, ring.filled, ring.rows)

    def again(carry: tuple) -> tuple:
        tries, key, slots, relative, window = carry
        key, draw_key, turn_key = jax.random.split(key, 3)
        # Entry j of a stratified draw comes from share j of the total. Rotate the entries: otherwise
        # entry j could never leave a share in which all starts are incomplete.
        turn = jax.random.randint(turn_key, (), 0, batch)
        new_slots, new_relative = (jnp.roll(drawn, turn) for drawn in draw(draw_key))
        slots = jnp.where(window.complete, slots, new_slots)
        relative = jnp.where(window.complete, relative, new_relative)
        return tries + 1, key, slots, relative, view(ring, slots, n, gamma, limit)

    def unusable(carry: tuple) -> Bool[Array, ""]:
        return (carry[0] < REDRAWS) & ~jnp.all(carry[-1].complete)

    slots, relative = draw(key)
    carry = (0, key, slots, relative, view(ring, slots, n, gamma, limit))
    _, _, slots, relative, window = jax.lax.while_loop(unusable, again, carry)
    return look_up(ring, slots, window), slots, relative, window.complete


def _observations(ring: Ring, slots: Int[Array, " B"]) -> Array:
    """Return the observations `[B, ...]` of slots; a stack is joined from its row and those before it."""
    if ring.stack == 1:
        return ring.observation[slots]
    return frames.join(ring.observation[ring.ahead(slots[:, None], jnp.arange(1 - ring.stack, 1))])
