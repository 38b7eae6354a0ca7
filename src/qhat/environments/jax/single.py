"""`JaxEnvironment`, the base class of one's own environment in JAX, and the batch that qhat makes of it."""

from __future__ import annotations

import abc
import dataclasses
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from qhat.axes.actions import BINS, Actions
from qhat.environments.base import Environment, Spec, Timestep
from qhat.environments.info import find, names_in, require_known
from qhat.environments.observations import Observations
from qhat.system.errors import UsageError, require

BACKEND = "jax"
TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
"""What JAX raises where Python asks a traced array for its value."""


class JaxEnvironment(abc.ABC):
    """A single environment in JAX: `qhat.train(MyEnv())` compiles it into the training loop.

    Subclasses write two pure functions for one environment. qhat maps them over copies and seeds, starts a
    new episode where one ended, keeps the true successor, applies the time limit, and reads masks.
    """

    observation_space: Any
    """A Gymnasium space, or the shape of an array of float32."""
    action_space: Any
    """A Gymnasium space, or the number of actions."""
    limit: int = 0
    """Steps after which an episode is truncated; 0 is no time limit."""

    @abc.abstractmethod
    def reset(self, key: Array) -> tuple[Any, Any]:
        """Return the state of a new episode, any pytree of arrays, and its first observation."""

    @abc.abstractmethod
    def step(self, state: Any, action: Any, key: Array) -> tuple[Any, ...]:
        """Return the new state, the observation, the reward and whether the task ended (`terminated`).

        A dictionary of numbers may be the fifth value: `info`, of which a run logs what `log` names.

        Args:
            action: as the action space has it: a whole number for `Discrete`, an array for `Box`.
        """

    def action_mask(self, state: Any) -> Any:
        """Return which actions are legal, `[actions]` or `[factors, choices]`; `None` is all."""
        return None


class Playing(eqx.Module):
    """State of one copy."""

    state: Any
    time: Array
    """Steps since the episode began."""


class JaxBatch(Environment):
    """E copies of a `JaxEnvironment`."""

    def __init__(
        self,
        single: JaxEnvironment,
        num_envs: int,
        *,
        id: str = "",
        bins: Sequence[int] = BINS,
        options: Mapping[str, Any] | None = None,
        log: Sequence[str] = (),
    ):
        self.single, self.num_envs, self.logs = single, num_envs, tuple(log)
        self._name = id or type(single).__name__
        self._layout = Observations.of(_space(single, "observation_space", self._name), self._name)
        actions = Actions.of(
            _space(single, "action_space", self._name), f"Environment '{self._name}'", bins
        )
        limit = single.limit
        require(
            isinstance(limit, int) and not isinstance(limit, bool) and 0 <= limit < 2**31,
            f"'{self._name}': limit is {limit!r}; expected a number of steps, or 0 for no time limit.",
        )
        self.spec = Spec(
            id=self._name,
            backend=BACKEND,
            shape=self._layout.shape,
            dtype=self._layout.dtype,
            actions=actions,
            limit=limit,
            options=tuple(sorted((options or {}).items())),
            layout=self._layout,
        )
        self._types = self._checked_types()
        self.spec = dataclasses.replace(self.spec, masked=self._mask_type() is not None)

    def reset(self, key: Array) -> tuple[Playing, Array]:
        return jax.vmap(self._fresh)(jax.random.split(key, self.num_envs))

    def step(self, state: Playing, action: Int[Array, "E F"], key: Array) -> tuple[Playing, Timestep]:
        keys = jax.random.split(key, self.num_envs)
        actions = self.spec.actions.to_env(action, jnp)
        return jax.vmap(self._step)(state, actions, keys)

    def legal(self, state: Playing) -> Bool[Array, "E F C"] | None:
        return jax.vmap(self._legal)(state.state) if self.spec.masked else None

    def require_finite(self) -> None:
        """Play one step; raise `UsageError` if its observation or reward is not finite."""
        state, first = jax.jit(self.reset)(jax.random.key(0))
        choices = jnp.zeros((self.num_envs, self.spec.actions.factors), jnp.int32)
        _, now = jax.jit(self.step)(state, choices, jax.random.key(1))
        found = {"reset's observation": first, "step's observation": now.successor, "reward": now.reward}
        for what, value in found.items():
            self._require(
                bool(np.isfinite(np.asarray(value, np.float64)).all()),
                f"{what} is {np.asarray(value)[0]}; expected finite numbers.",
            )

    def _fresh(self, key: Array) -> tuple[Playing, Array]:
        state, observation = self.single.reset(key)
        return Playing(self._typed(state), jnp.int32(0)), self._read(observation)

    def _step(self, playing: Playing, action: Any, key: Array) -> tuple[Playing, Timestep]:
        move, again = jax.random.split(key)
        after, observed, reward, terminated, *info = self.single.step(playing.state, action, move)
        successor, terminated = self._read(observed), jnp.asarray(terminated, bool)
        time = playing.time + 1
        late = (time >= self.spec.limit) if self.spec.limit else jnp.asarray(False)
        ended = terminated | late
        next_playing = Playing(self._typed(after), time)
        next_playing, observation = jax.tree.map(
            lambda new, old: jnp.where(ended, new, old), self._fresh(again), (next_playing, successor)
        )
        return next_playing, Timestep(
            observation=observation,
            reward=jnp.asarray(reward, jnp.float32),
            terminated=terminated,
            truncated=late & ~terminated,
            successor=successor,
            real=jnp.asarray(True),
            legal=self._legal(next_playing.state) if self.spec.masked else None,
            legal_successor=self._legal(after) if self.spec.masked else None,
            info=jnp.stack([self._logged(info, name) for name in self.logs]) if self.logs else None,
        )

    def _logged(self, info: Sequence[Any], name: str) -> Array:
        return jnp.asarray(find(info[0], name), jnp.float32)

    def _legal(self, state: Any) -> Bool[Array, "F C"]:
        shape = (self.spec.actions.factors, self.spec.actions.width)
        return jnp.asarray(self.single.action_mask(state), bool).reshape(shape)

    def _read(self, observation: Any) -> Array:
        return self._layout.read(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], observation), jnp)[0]

    def _typed(self, state: Any) -> Any:
        # A Python number, or an array of weak type, must have the type that the loop carries.
        return jax.tree.map(
            lambda leaf, like: (
                leaf if jnp.issubdtype(like.dtype, jax.dtypes.prng_key) else jnp.asarray(leaf, like.dtype)
            ),
            state,
            self._types,
        )

    def _checked_types(self) -> Any:
        """Trace `reset` and `step`; return the shapes and dtypes of the state."""
        key = jax.eval_shape(jax.random.key, 0)
        started = self._traced("reset", self.single.reset, key)
        state, observation = self._values(started, "reset", ("state", "observation"))
        self._require_observation(observation, "reset")
        choice = jnp.zeros((1, self.spec.actions.factors), jnp.int32)
        action = jax.eval_shape(lambda: self.spec.actions.to_env(choice, jnp)[0])
        names = ("state", "observation", "reward", "terminated")
        stepped = self._traced("step", self.single.step, state, action, key)
        types = self._same_state(state, self._values(stepped, "step", names)[0])
        # A second time with what `step` makes of a Python number.
        stepped = self._traced("step", self.single.step, types, action, key)
        after, observation, reward, terminated, *info = self._values(stepped, "step", names)
        self._same_state(types, after)
        self._require_info(*info)
        self._require_observation(observation, "step")
        self._require_scalar("reward", reward, "a number", lambda dtype: dtype.kind in "fiub")
        expected = "a bool, as the comparison `x > 1` gives"
        self._require_scalar("terminated", terminated, expected, lambda dtype: dtype.kind == "b")
        return types

    def _traced(self, where: str, function: Callable[..., Any], *args: Any) -> Any:
        """Return the shapes that a function of the user returns."""
        try:
            return jax.eval_shape(function, *args)
        except TRACED as error:
            raise UsageError(
                f"'{self._name}': {where} asks a traced array for its value ({_place(error)}), as `if`,"
                " `int()` and NumPy do; expected jax.numpy, and jnp.where(condition, a, b) in place of if."
            ) from error
        except Exception as error:
            raise UsageError(f"'{self._name}': {where} fails ({failure(error)}).") from error

    def _values(self, given: Any, where: str, names: tuple[str, ...]) -> tuple[Any, ...]:
        rest = given[len(names) :] if type(given) is tuple and where == "step" else ()
        has_info = len(rest) == 1 and isinstance(rest[0], Mapping)
        if type(given) is tuple and len(given) == len(names) + has_info:
            return given
        found = f"{len(given)} values" if type(given) is tuple else f"one {type(given).__name__}"
        more = " A time limit is `limit = N` of the class." if where == "step" else ""
        raise UsageError(
            f"'{self._name}': {where} returns {found}; expected {len(names)}: {', '.join(names)}.{more}"
        )

    def _require_observation(self, observation: Any, where: str) -> None:
        try:
            coded = jax.eval_shape(self._read, observation)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            coded = None
        if coded is not None and tuple(coded.shape) == self.spec.shape and self._fits(observation):
            return
        space = self.single.observation_space
        raise UsageError(
            f"'{self._name}': {where}'s observation is {_said(observation)}; expected what"
            f" observation_space says: {space}."
        )

    def _fits(self, observation: Any) -> bool:
        """Whether no entry loses its fractions on the way to its space's type."""
        entries = self._layout.entries
        leaves = jax.tree.leaves(observation)
        if len(entries) != 1 or len(leaves) != 1:
            return True
        return not (leaves[0].dtype.kind == "f" and np.dtype(entries[0].dtype).kind in "iub")

    def _require_scalar(self, name: str, value: Any, expected: str, good: Callable[[Any], bool]) -> None:
        plain = hasattr(value, "dtype") and value.shape == () and good(np.dtype(value.dtype))
        fix = f"; take {name}[0]" if getattr(value, "shape", None) == (1,) else ""
        self._require(plain, f"step's {name} is {_said(value)}; expected {expected}, of shape (){fix}.")

    def _require_info(self, info: Any = None) -> None:
        require_known(self.logs, names_in(info), self._name)
        for name in self.logs:
            value = find(info, name)
            good = hasattr(value, "dtype") and value.shape == () and np.dtype(value.dtype).kind in "biuf"
            self._require(good, f"{name} is {_said(value)}; expected a number, of shape ().")

    def _same_state(self, before: Any, after: Any) -> Any:
        old, new = (jax.tree_util.tree_flatten_with_path(state) for state in (before, after))
        self._require(
            old[1] == new[1],
            f"step returns the state {new[1]} and reset the state {old[1]}; expected the same structure.",
        )
        for (path, was), (_, now) in zip(old[0], new[0], strict=True):
            widens = was.weak_type and jnp.result_type(was, now) == now.dtype
            same = was.shape == now.shape and (was.dtype == now.dtype or widens)
            self._require(
                same,
                f"state{jax.tree_util.keystr(path)} is {_said(was)} from reset and {_said(now)} from step;"
                " expected the same from both: add .astype where it is made.",
            )
        return after

    def _mask_type(self) -> Any:
        mask = self._traced("action_mask", self.single.action_mask, self._types)
        if mask is None:
            return None
        actions = self.spec.actions
        shapes = [(actions.factors, actions.width)] + ([(actions.width,)] if actions.factors == 1 else [])
        self._require(
            hasattr(mask, "shape") and mask.shape in shapes and np.dtype(mask.dtype).kind in "biu",
            f"action_mask gives {_said(mask)}; expected {shapes[-1]} of bool.",
        )
        return mask

    def _require(self, condition: bool, sentence: str) -> None:
        require(condition, f"'{self._name}': {sentence}")


def _space(single: JaxEnvironment, attribute: str, name: str) -> gymnasium.Space:
    """Return a space of the environment, which may be a shape or a number."""
    space = getattr(single, attribute, None)
    if isinstance(space, gymnasium.Space):
        return space
    whole = isinstance(space, int) and not isinstance(space, bool) and space >= 1
    if attribute == "action_space":
        require(
            whole,
            f"'{name}': action_space is {space!r}; expected a number of actions, or a Gymnasium space.",
        )
        return gymnasium.spaces.Discrete(int(space or 1))
    shape: Any = (space,) if whole else space
    good = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 1 for n in shape)
    require(
        good, f"'{name}': observation_space is {space!r}; expected a shape, as (4,), or a Gymnasium space."
    )
    return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)


def _said(value: Any) -> str:
    """Say shapes and dtypes in place of values."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{tuple(value.shape)} of {value.dtype}"
    leaves = jax.tree.map(lambda leaf: f"{tuple(leaf.shape)} of {leaf.dtype}", value)
    return str(leaves)


def failure(error: BaseException) -> str:
    """Return what an error of the caller's code says, and where."""
    said = str(error).split("\n", 1)[0]
    return f"{type(error).__name__}: {said}, at {_place(error)}"


def _place(error: BaseException) -> str:
    """Return the file and line of the caller's code that an error comes from."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename
    ]
    last = frames[-1] if frames else None
    return f"{last.filename}:{last.lineno}" if last else "unknown line"
