"""What tracing says of a `JaxEnvironment`: shapes, types and structure, or a sentence about the mistake."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qhat.axes.actions import Actions
from qhat.environments.info import find, names_in, require_known
from qhat.environments.jax.single import JaxEnvironment, failure, place
from qhat.environments.observations import Observations
from qhat.system.errors import UsageError, require

TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
"""What JAX raises where Python asks a traced array for its value."""


FLAGS = ("truncated", "is_success", "success")
"""Keys of `info` that have a meaning."""


@dataclasses.dataclass(frozen=True)
class Traced:
    """A single environment, and what its class declares."""

    single: JaxEnvironment
    name: str
    layout: Observations
    actions: Actions
    logs: tuple[str, ...]

    def read(self, observation: Any) -> Array:
        """Code one observation."""
        return self.layout.read(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], observation), jnp)[0]

    def require(self, condition: bool, sentence: str) -> None:
        """Raise `UsageError` with the environment's name unless the condition is true."""
        require(condition, f"'{self.name}': {sentence}")

    def types(self) -> tuple[Any, frozenset[str]]:
        """Trace `reset` and `step`.

        Returns:
            the shapes and dtypes of the state, and which of `FLAGS` the `info` of a step has.
        """
        key = jax.eval_shape(jax.random.key, 0)
        started = self._traced("reset", self.single.reset, key)
        state, observation = self._values(started, "reset", ("state", "observation"))
        self._require_observation(observation, "reset")
        choice = jnp.zeros((1, self.actions.factors), jnp.int32)
        action = jax.eval_shape(lambda: self.actions.to_env(choice, jnp)[0])
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
        return types, frozenset(FLAGS) & set(*info)

    def _traced(self, where: str, function: Callable[..., Any], *args: Any) -> Any:
        """Return the shapes that a function of the user returns."""
        try:
            return jax.eval_shape(function, *args)
        except TRACED as error:
            raise UsageError(
                f"'{self.name}': {where} asks a traced array for its value ({place(error)}), as `if`,"
                " `int()` and NumPy do; expected jax.numpy, and jnp.where(condition, a, b) in place of if."
            ) from error
        except Exception as error:
            raise UsageError(f"'{self.name}': {where} fails ({failure(error)}).") from error

    def _values(self, given: Any, where: str, names: tuple[str, ...]) -> tuple[Any, ...]:
        rest = given[len(names) :] if type(given) is tuple and where == "step" else ()
        has_info = len(rest) == 1 and isinstance(rest[0], Mapping)
        if type(given) is tuple and len(given) == len(names) + has_info:
            return given
        found = f"{len(given)} values" if type(given) is tuple else f"one {type(given).__name__}"
        more = " A time limit is `limit = N` of the class." if where == "step" else ""
        raise UsageError(
            f"'{self.name}': {where} returns {found}; expected {len(names)}: {', '.join(names)}.{more}"
        )

    def _require_observation(self, observation: Any, where: str) -> None:
        try:
            coded = jax.eval_shape(self.read, observation)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            coded = None
        if coded is not None and tuple(coded.shape) == self.layout.shape and self._fits(observation):
            return
        space = self.single.observation_space
        raise UsageError(
            f"'{self.name}': {where}'s observation is {_said(observation)}; expected what"
            f" observation_space says: {space}."
        )

    def _fits(self, observation: Any) -> bool:
        """Whether no entry loses its fractions on the way to its space's type."""
        entries = self.layout.entries
        leaves = jax.tree.leaves(observation)
        if len(entries) != 1 or len(leaves) != 1:
            return True
        return not (leaves[0].dtype.kind == "f" and np.dtype(entries[0].dtype).kind in "iub")

    def _require_scalar(self, name: str, value: Any, expected: str, good: Callable[[Any], bool]) -> None:
        plain = hasattr(value, "dtype") and value.shape == () and good(np.dtype(value.dtype))
        fix = f"; take {name}[0]" if getattr(value, "shape", None) == (1,) else ""
        self.require(plain, f"step's {name} is {_said(value)}; expected {expected}, of shape (){fix}.")

    def _require_info(self, info: Any = None) -> None:
        require_known(self.logs, names_in(info), self.name)
        for name in (*self.logs, *(name for name in FLAGS if name in (info or {}))):
            value = find(info, name)
            good = hasattr(value, "dtype") and value.shape == () and np.dtype(value.dtype).kind in "biuf"
            self.require(good, f"{name} is {_said(value)}; expected a number, of shape ().")

    def _same_state(self, before: Any, after: Any) -> Any:
        old, new = (jax.tree_util.tree_flatten_with_path(state) for state in (before, after))
        self.require(
            old[1] == new[1],
            f"step returns the state {new[1]} and reset the state {old[1]}; expected the same structure.",
        )
        for (path, was), (_, now) in zip(old[0], new[0], strict=True):
            widens = was.weak_type and jnp.result_type(was, now) == now.dtype
            same = was.shape == now.shape and (was.dtype == now.dtype or widens)
            self.require(
                same,
                f"state{jax.tree_util.keystr(path)} is {_said(was)} from reset and {_said(now)} from step;"
                " expected the same from both: add .astype where it is made.",
            )
        return after

    def mask(self, types: Any) -> Any:
        """Return the shape of the mask of a state; `None` where all actions are legal."""
        mask = self._traced("action_mask", self.single.action_mask, types)
        if mask is None:
            return None
        actions = self.actions
        shapes = [(actions.factors, actions.width)] + ([(actions.width,)] if actions.factors == 1 else [])
        self.require(
            hasattr(mask, "shape") and mask.shape in shapes and np.dtype(mask.dtype).kind in "biu",
            f"action_mask gives {_said(mask)}; expected {shapes[-1]} of bool.",
        )
        return mask


def space_of(single: JaxEnvironment, attribute: str, name: str) -> gymnasium.Space:
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
