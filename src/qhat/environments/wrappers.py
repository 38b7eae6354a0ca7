"""The list `wrap`: what stands between an environment and the learner, as data, the innermost first.

A wrapper of environments changes the task (what is seen, how long an action lasts), in training and in
evaluation. A wrapper of rewards changes what is learned from and nothing else: scores stay in the task's
own units.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

from qhat.axes.axis import check, from_json
from qhat.environments.flicker import Flicker
from qhat.environments.wrapper import EnvironmentWrapper, RewardWrapper, Wrapper, choose
from qhat.system.errors import UsageError, require, setting
from qhat.system.files import quote
from qhat.system.lazy import Array, Float, jax, jnp


@dataclasses.dataclass(frozen=True)
class FrameStack(EnvironmentWrapper):
    """Shows the last observations, the oldest first, on a new leading axis (Mnih et al. 2015, methods).

    An episode's first one is repeated. Its successor at an episode's end is the true one.
    """

    name: ClassVar[str] = "frame_stack"

    count: int = 4
    """Observations that are shown together."""

    def validate(self) -> None:
        require(
            1 <= self.count <= 1_000, f"frame_stack:count is {self.count}; expected 1 to 1000 observations."
        )

    def spec(self, spec: Any) -> Any:
        # Replay stores each frame once; of a stack of stacks it stores the whole.
        return dataclasses.replace(
            spec,
            shape=(self.count, *spec.shape),
            stack=self.count if spec.stack == 1 else 1,
            layout=None if spec.layout is None else spec.layout.stacked(self.count),
        )

    def begin(self, observation: Array, spec: Any) -> tuple[Any, Array]:
        stack = self._repeated(observation)
        return stack, stack

    def step(self, inner: Any, state: Any, memory: Any, action: Array, key: Array) -> tuple[Any, Any, Any]:
        state, now = inner.step(state, action, key)
        successor = jnp.concatenate([memory[:, 1:], now.successor[:, None]], axis=1)
        fresh = now.terminated | now.truncated | ~now.real
        stack = choose(fresh, self._repeated(now.observation), successor)
        return state, stack, now._replace(observation=stack, successor=successor)

    def around(self, env: Any) -> Any:
        from qhat.environments.spaces import Stacked, as_array

        return Stacked(as_array(env), stack_size=self.count)

    def _repeated(self, observation: Array) -> Array:
        return jnp.repeat(observation[:, None], self.count, axis=1)


@dataclasses.dataclass(frozen=True)
class ActionRepeat(EnvironmentWrapper):
    """Executes every action several times and adds the rewards; stops at an episode's end."""

    name: ClassVar[str] = "action_repeat"

    count: int = 4
    """Times that an action is executed: environment steps are counted in actions chosen."""

    def validate(self) -> None:
        require(1 <= self.count <= 1_000, f"action_repeat:count is {self.count}; expected 1 to 1000 times.")

    def require_fit(self, inner: Any) -> None:
        _refuse_masks(self, inner.spec)
        rows = jax.eval_shape(inner.reset, jax.random.key(0))[0] if inner.snapshots else None
        batched = rows is not None and all(
            leaf.shape[:1] == (inner.num_envs,) for leaf in jax.tree.leaves(rows)
        )
        around, option = setting("wrap", "action_repeat"), {"frame_skip": self.count}
        require(
            batched,
            f"{around} cannot stop single copies of '{inner.spec.id}' ({inner.spec.backend})"
            " where their episodes end, while the others go on. Use its own option where it has one"
            f" ({setting('env_kwargs', option, f'frame_skip={self.count}')}), or Gymnasium's environment"
            f" (gym:{inner.spec.id.rpartition(':')[2]}).",
        )

    def begin(self, observation: Array, spec: Any) -> tuple[Any, Array]:
        return (), observation

    def step(self, inner: Any, state: Any, memory: Any, action: Array, key: Array) -> tuple[Any, Any, Any]:
        first, *keys = jax.random.split(key, self.count)
        state, now = inner.step(state, action, first)

        def again(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], None]:
            state, now = carry
            over = now.terminated | now.truncated | ~now.real
            later, then = inner.step(state, action, key)
            succeeded = then.success
            if succeeded is not None and now.success is not None:
                succeeded = jnp.where(jnp.isnan(succeeded), now.success, succeeded)
            then = then._replace(reward=now.reward + then.reward, success=succeeded)
            return jax.tree.map(functools.partial(choose, over), (state, now), (later, then)), None

        if keys:
            (state, now), _ = jax.lax.scan(again, (state, now), jnp.stack(keys))
        return state, (), now

    def around(self, env: Any) -> Any:
        from qhat.environments.gymnasium.repeat import Repeat

        return Repeat(env, self.count)


@dataclasses.dataclass(frozen=True)
class StickyActions(EnvironmentWrapper):
    """Executes the last action again, with a probability (Machado et al. 2018, arXiv:1709.06009, §5.2)."""

    name: ClassVar[str] = "sticky_actions"

    probability: float = 0.25
    """ς, how often the environment takes the action that it executed last instead of the chosen one."""

    def validate(self) -> None:
        require(
            0.0 <= self.probability < 1.0,
            f"sticky_actions:probability is {self.probability}; expected within [0, 1).",
        )

    def require_fit(self, inner: Any) -> None:
        _refuse_masks(self, inner.spec)

    def begin(self, observation: Array, spec: Any) -> tuple[Any, Array]:
        E = observation.shape[0]
        return (jnp.zeros((E, spec.actions.factors), jnp.int32), jnp.zeros(E, bool)), observation

    def step(self, inner: Any, state: Any, memory: Any, action: Array, key: Array) -> tuple[Any, Any, Any]:
        last, follows = memory
        draw, key = jax.random.split(key)
        sticks = follows & (jax.random.uniform(draw, follows.shape) < self.probability)
        executed = choose(sticks, last, action)
        state, now = inner.step(state, executed, key)
        # An episode's first action is its own: nothing was executed before it.
        return state, (executed, now.real & ~(now.terminated | now.truncated)), now

    def around(self, env: Any) -> Any:
        from gymnasium.wrappers import StickyAction

        return StickyAction(env, self.probability)


@dataclasses.dataclass(frozen=True)
class BoundActions(EnvironmentWrapper):
    """Bounds the joints that have no bounds, so that their range can be cut into bins."""

    name: ClassVar[str] = "bound_actions"

    low: float = -1.0
    """Least command of a joint without a lower bound."""
    high: float = 1.0
    """Largest command of a joint without an upper bound."""

    def validate(self) -> None:
        require(
            self.low < self.high,
            f"bound_actions:low is {self.low} and high {self.high}; expected low < high.",
        )

    def require_fit(self, inner: Any) -> None:
        around = setting("wrap", "bound_actions")
        raise UsageError(
            f"{around} has no meaning in '{inner.spec.id}' ({inner.spec.backend}): its actions"
            " are bounded. Expected it around an environment of Gymnasium's with joints that are not."
        )

    def begin(self, observation: Array, spec: Any) -> tuple[Any, Array]:
        return (), observation

    def step(self, inner: Any, state: Any, memory: Any, action: Array, key: Array) -> tuple[Any, Any, Any]:
        state, now = inner.step(state, action, key)
        return state, memory, now

    def around(self, env: Any) -> Any:
        from gymnasium.wrappers import TransformAction

        from qhat.environments.spaces import bounded

        return TransformAction(env, lambda action: action, bounded(env.action_space, self.low, self.high))


@dataclasses.dataclass(frozen=True)
class Drop(EnvironmentWrapper):
    """Leaves entries of a dictionary out of what is seen: text, or what is no help."""

    name: ClassVar[str] = "drop"

    keys: str = ""
    """Keys of the entries, with + between them, for example `mission+direction`."""

    def validate(self) -> None:
        require(bool(self.listed), f"drop:keys is '{self.keys}'; expected a key, as in drop:keys=mission.")

    @property
    def listed(self) -> tuple[str, ...]:
        """The keys."""
        return tuple(key for key in self.keys.split("+") if key)

    def require_fit(self, inner: Any) -> None:
        raise UsageError(
            f"{setting('wrap', 'drop')} has no meaning in '{inner.spec.id}' ({inner.spec.backend}), whose"
            " step compiles;"
            " expected it around an environment of Gymnasium's (gym:)."
        )

    def begin(self, observation: Array, spec: Any) -> tuple[Any, Array]:
        return (), observation

    def step(self, inner: Any, state: Any, memory: Any, action: Array, key: Array) -> tuple[Any, Any, Any]:
        state, now = inner.step(state, action, key)
        return state, memory, now

    def around(self, env: Any) -> Any:
        from qhat.environments.spaces import without

        return without(env, self.listed)


@dataclasses.dataclass(frozen=True)
class RewardScale(RewardWrapper):
    """Multiplies the rewards that are learned from."""

    name: ClassVar[str] = "reward_scale"

    factor: float = 1.0
    """By this."""

    def validate(self) -> None:
        require(self.factor != 0, "reward_scale:factor is 0; expected another number: nothing is learned.")

    def learned(self, reward: Float[Array, " E"]) -> Float[Array, " E"]:
        return reward * self.factor


@dataclasses.dataclass(frozen=True)
class RewardClip(RewardWrapper):
    """Keeps the rewards that are learned from within bounds (Mnih et al. 2015, methods)."""

    name: ClassVar[str] = "reward_clip"

    low: float = -1.0
    """Smallest reward."""
    high: float = 1.0
    """Largest reward."""

    def validate(self) -> None:
        require(
            self.low < self.high,
            f"reward_clip:low is {self.low} and high {self.high}; expected low < high.",
        )

    def learned(self, reward: Float[Array, " E"]) -> Float[Array, " E"]:
        return jnp.clip(reward, self.low, self.high)


WRAPPERS: tuple[type[Wrapper], ...] = (
    FrameStack,
    ActionRepeat,
    StickyActions,
    BoundActions,
    Drop,
    Flicker,
    RewardScale,
    RewardClip,
)
"""What `wrap` can list."""


def validate(wrap: Sequence[Wrapper]) -> None:
    """Raise `UsageError` for the first entry, or order of entries, that has no meaning."""
    for index, part in enumerate(wrap):
        require(
            isinstance(part, Wrapper), f"wrap has {part!r}; expected wrappers, for example FrameStack(4)."
        )
        check(part)
        part.validate()
        later = [other.name for other in wrap[index + 1 :] if isinstance(other, EnvironmentWrapper)]
        if isinstance(part, RewardWrapper) and "action_repeat" in later:
            raise UsageError(
                f"{setting('wrap')} has {part.name} before action_repeat; expected it after: it is given"
                " what all executions of an action earned together."
            )


def listed(data: Any) -> tuple[Wrapper, ...]:
    """Read the list that a run's config.json has. Raises `UsageError`."""
    require(
        isinstance(data, list) and len(data) <= 20,
        f"wrap is {quote(data)}; expected a list, of 20 at most.",
    )
    wrap = tuple(from_json(item, WRAPPERS) for item in data)
    validate(wrap)
    return wrap


def around(env: Any, wrap: Sequence[Wrapper]) -> Any:
    """Return one Gymnasium environment with the wrappers of environments around it.

    A mask is taken out of its observations first: it is no part of what wrappers change.
    """
    from qhat.environments.gymnasium.mask_source import mask_in_info

    env = mask_in_info(env)
    for part in wrap:
        if isinstance(part, EnvironmentWrapper):
            env = part.around(env)
    return env


def of_rewards(wrap: Sequence[Wrapper]) -> tuple[RewardWrapper, ...]:
    """Return the wrappers of rewards: the learner's part of the list."""
    return tuple(part for part in wrap if isinstance(part, RewardWrapper))


def require_unwrapped(name: str, wrap: Sequence[Wrapper]) -> None:
    """Raise `UsageError` where an environment wrapper would wrap a whole batch."""
    parts = [part.name for part in wrap if isinstance(part, EnvironmentWrapper)]
    require(
        not parts,
        f"wrap has {', '.join(parts)}, and '{name}' is a batch already; expected its copies wrapped, or a"
        " function that makes one.",
    )


def _refuse_masks(part: Wrapper, spec: Any) -> None:
    require(
        not spec.masked,
        f"{setting('wrap', part.name)} has no meaning in '{spec.id}', which says at every step which"
        " actions are legal: the action that is executed again may not be.",
    )
