"""The contract of an `Environment` passed from Python, checked before anything is written.

Shapes and dtypes come from tracing, which runs nothing; successors are checked under random actions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

from qhat.environments.base import Environment, Spec, Timestep
from qhat.environments.catalogue import marked
from qhat.environments.gymnasium.starts import WIDEST
from qhat.environments.gymnasium.successors import Rows, replaced
from qhat.system.devices import jit_fast_compile
from qhat.system.errors import UsageError, require

COPIES, MOST_COPIES = 32, 64
"""Copies that are looked at: at least, and of all that there are."""
TURNS, MOST_TURNS, ENDS = 100, 2_000, 200
"""Steps of a compiled call, of all calls, and ends that are enough."""
SECONDS = 2.0
"""What the look may take, once it is compiled."""


def require_contract(environment: Environment) -> int:
    """Raise `UsageError` with the first part of the contract that is broken.

    Returns:
        the time limit in steps: what its spec says, or the longest episode that was seen to be cut; 0 where
        neither says one.
    """
    name = marked(environment.spec.id)
    _require_shapes(environment, name)
    if environment.snapshots and not environment.is_async:
        rows, starts = look(environment)
        why = replaced(rows, starts)
        require(
            not why,
            f"'{name}': `successor` is the next episode's first observation in the rows where an episode"
            f" ended ({why}); expected the last observation of the episode that ended. Take it before the"
            " reset; `observation` is the one after it.",
        )
        return environment.spec.limit or rows.limit
    return environment.spec.limit


def _require_shapes(environment: Environment, name: str) -> None:
    """Ask the tracer what `reset`, `step` and `legal` give."""
    spec, E = environment.spec, environment.num_envs
    require(
        isinstance(E, int) and not isinstance(E, bool) and E >= 1,
        f"'{name}': num_envs is {E!r}; expected a whole number of 1 or more.",
    )
    if not environment.snapshots:
        # Its episodes are begun outside programs, by `start`: nothing of it may be traced twice.
        return
    key = jax.eval_shape(jax.random.key, 0)
    state, observation = _pair(jax.eval_shape(environment.reset, key), name, "reset", "observations")
    _require_array(observation, (E, *spec.shape), spec.dtype, name, "reset's observation")
    action = jax.ShapeDtypeStruct((E, spec.actions.factors), jnp.int32)
    after, now = _pair(jax.eval_shape(environment.step, state, action, key), name, "step", "a Timestep")
    require(
        isinstance(now, Timestep),
        f"'{name}': step returns a state and a {type(now).__name__}; expected a state and a"
        " qhat.environments.base.Timestep.",
    )
    for field, shape, dtype, needed in _fields(spec, E):
        value = getattr(now, field)
        if value is not None or needed:
            _require_array(value, shape, dtype, name, field)
    logs = environment.logs
    require(
        bool(logs) or now.info is None,
        f"'{name}': `info` has values, and `logs` has no names; expected one name for each column.",
    )
    if logs:
        _require_array(now.info, (E, len(logs)), "float32", name, "info")
    _require_same_state(state, after, name)
    mask = jax.eval_shape(environment.legal, state)
    masks = (mask, now.legal, now.legal_successor)
    require(
        all((one is not None) == spec.masked for one in masks),
        f"'{name}': spec.masked is {spec.masked}, and legal() gives {_say(mask)}, `legal` is"
        f" {_say(now.legal)} and `legal_successor` {_say(now.legal_successor)}; expected masks from all"
        " three and masked=True, or from none.",
    )
    if mask is not None:
        _require_array(mask, _mask_shape(spec, E), "bool", name, "legal()")


def _fields(spec: Spec, E: int) -> Iterator[tuple[str, tuple[int, ...], str, bool]]:
    """The fields of a timestep: name, shape, dtype, and whether it has to be there."""
    for field in ("observation", "successor"):
        yield field, (E, *spec.shape), spec.dtype, True
    yield "reward", (E,), "float32", True
    for field in ("terminated", "truncated", "real"):
        yield field, (E,), "bool", True
    for field in ("legal", "legal_successor"):
        yield field, _mask_shape(spec, E), "bool", False
    for field, dtype in (
        ("score", "float32"),
        ("over", "bool"),
        ("broken", "bool"),
        ("success", "float32"),
    ):
        yield field, (E,), dtype, False


def _mask_shape(spec: Spec, E: int) -> tuple[int, ...]:
    return (E, spec.actions.factors, spec.actions.width)


def _pair(given: Any, name: str, where: str, second: str) -> tuple[Any, Any]:
    if not isinstance(given, tuple) or len(given) != 2:
        count = f"{len(given)} values" if type(given) is tuple else type(given).__name__
        raise UsageError(f"'{name}': {where} returns {count}; expected two, a state and {second}.")
    return given


def _require_array(value: Any, shape: tuple[int, ...], dtype: str, name: str, field: str) -> None:
    said = f"{shape} of {dtype}"
    require(value is not None, f"'{name}': `{field}` is None; expected an array {said}.")
    require(
        hasattr(value, "shape") and hasattr(value, "dtype"),
        f"'{name}': `{field}` is {type(value).__name__}; expected an array {said}.",
    )
    if value.shape == shape and value.dtype == jnp.dtype(dtype):
        return
    fix = f".astype('{dtype}')"
    if value.shape != shape:
        fix = f".reshape{shape}" if np.prod(value.shape) == np.prod(shape) else ""
        fix = fix or "one row for each of num_envs copies, and a spec that says what a row is"
    fix = f"add {fix} to it" if fix.startswith(".") else f"give it {fix}"
    raise UsageError(
        f"'{name}': `{field}` has shape {value.shape} and dtype {value.dtype}; expected {said}: {fix}."
    )


def _require_same_state(before: Any, after: Any, name: str) -> None:
    old, new = (jax.tree_util.tree_flatten_with_path(state) for state in (before, after))
    require(
        old[1] == new[1],
        f"'{name}': step returns a state of another structure than reset's; expected the same: {old[1]}.",
    )
    for (path, was), (_, now) in zip(old[0], new[0], strict=True):
        require(
            (was.shape, was.dtype) == (now.shape, now.dtype),
            f"'{name}': state{jax.tree_util.keystr(path)} is {was.shape} of {was.dtype} from reset and"
            f" {now.shape} of {now.dtype} from step; expected the same from both: add .astype or .reshape"
            " where they are made.",
        )


def _say(value: Any) -> str:
    return "None" if value is None else "a mask"


def look(environment: Environment, seconds: float = SECONDS) -> tuple[Rows, Shaped[np.ndarray, "K D"]]:
    """Play random actions; return what they brought, and first observations of fresh episodes."""
    E = environment.num_envs
    seeds = max(2, -(-COPIES // E))
    shown = max(1, MOST_COPIES // seeds)
    state, observation = environment.start(jax.random.split(jax.random.key(0), seeds))
    narrow = _narrowing(int(np.prod(environment.spec.shape)))
    starts = np.asarray(narrow(observation[:, :shown].reshape(seeds * min(E, shown), -1)))
    carry = (state, observation, jax.vmap(environment.legal)(state))
    call, pieces, until = jit_fast_compile(_call(environment, seeds, shown, narrow)), [], None
    while len(pieces) * TURNS < MOST_TURNS:
        carry, rows = jax.block_until_ready(call(carry, jax.random.key(len(pieces))))
        pieces.append(jax.tree.map(np.asarray, rows))
        ends = sum(int(((one["terminated"] | one["truncated"]) & one["real"]).sum()) for one in pieces)
        # The first call compiles.
        until = until or time.perf_counter() + seconds
        if ends >= ENDS or time.perf_counter() > until:
            break
    whole = {field: np.concatenate([one[field] for one in pieces]) for field in pieces[0]}
    return Rows(**whole), starts.astype(np.float64)


def _call(
    environment: Environment, seeds: int, shown: int, narrow: Callable[[Array], Array]
) -> Callable[[Any, Array], tuple[Any, dict[str, Array]]]:
    """Return what steps `TURNS` times, and shows the first copies of every seed as rows `[T, N, ...]`."""
    choices = jnp.asarray(environment.spec.actions.choices)
    shape = (seeds, environment.num_envs, len(environment.spec.actions.choices))

    def flat(values: Array) -> Array:
        part = values[:, :shown]
        return part.reshape(part.shape[0] * part.shape[1], -1)

    def turn(carry: tuple, key: Array) -> tuple[tuple, dict[str, Array]]:
        state, before, legal = carry
        act, step = jax.random.split(key)
        action = jax.random.randint(act, shape, 0, choices)
        if legal is not None:
            action = jax.random.categorical(act, jnp.where(legal, 0.0, -jnp.inf), axis=-1)
        action = action.astype(jnp.int32)
        state, now = jax.vmap(environment.step)(state, action, jax.random.split(step, seeds))
        before_, successor, observation = flat(before), flat(now.successor), flat(now.observation)
        turn_rows = {
            "before": narrow(before_),
            "successor": narrow(successor),
            "observation": narrow(observation),
            "same": (successor == observation).all(axis=-1),
            "place": _digest(_bits(before_)),
            "choice": _digest(jnp.concatenate([_bits(before_), _bits(flat(action))], axis=-1)),
            "reached": _digest(_bits(successor)),
            **{name: flat(getattr(now, name))[:, 0] for name in ("terminated", "truncated", "real")},
        }
        return (state, now.observation, now.legal), turn_rows

    def call(carry: Any, key: Array) -> tuple[Any, dict[str, Array]]:
        return jax.lax.scan(turn, carry, jax.random.split(key, TURNS))

    return call


def _narrowing(width: int) -> Callable[[Array], Array]:
    """Return what makes rows `[N, width]` as easily compared: as they are, or sums with random weights."""
    if width <= WIDEST:
        return lambda rows: rows.astype(jnp.float32)
    draw = np.random.default_rng(0)
    weights = jnp.asarray(draw.normal(size=(width, 64)), jnp.float32)
    return lambda rows: rows.astype(jnp.float32) @ weights


def _bits(rows: Array) -> UInt32[Array, "N D"]:
    if jnp.issubdtype(rows.dtype, jnp.floating):
        # -0.0 and 0.0 are one number.
        return jax.lax.bitcast_convert_type(rows.astype(jnp.float32) + 0.0, jnp.uint32)
    return rows.astype(jnp.uint32)


def _digest(bits: UInt32[Array, "N D"]) -> UInt32[Array, " N"]:
    """A number for every row: equal rows have equal ones."""
    draw = np.random.default_rng(1)
    weights = draw.integers(0, 2**31, bits.shape[-1], dtype=np.uint32) * 2 + 1
    mixed = (bits ^ (bits >> 15)) * jnp.asarray(weights)
    return (mixed ^ (mixed >> 13)).sum(axis=-1, dtype=jnp.uint32)
