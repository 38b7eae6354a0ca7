"""What `qhat doctor` measures: the machine, or an environment under random actions."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from gymnasium.vector import AutoresetMode

from qhat import recipes
from qhat._version import __version__
from qhat.axes.actions import BINS
from qhat.cli.proposals import Proposal, proposed
from qhat.engine.iteration import Program
from qhat.environments.base import Environment, Spec, laid_out
from qhat.environments.catalogue import Entry, find
from qhat.environments.gymnasium import advice
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.gymnasium.probe import GAMMA, Findings, episode_lengths, probe, share_of_others
from qhat.environments.host import HostEnvironment
from qhat.environments.make import make, make_any
from qhat.environments.observations import Observations
from qhat.environments.reward_scale import largest_return
from qhat.environments.wrappers import RewardScale, Wrapper, of_rewards
from qhat.recipes.config import TrainConfig
from qhat.recipes.presets import preset_of
from qhat.system import devices
from qhat.system.host_memory import nbytes
from qhat.system.machine import EXTRAS, install_command, installed, versions

STEPS = 20_000
"""Maximum steps per copy."""
TURNS = 500
"""Steps per compiled call."""
WHOLE = "observation"
"""Name of an observation without entries."""


@dataclasses.dataclass(frozen=True)
class Checkup:
    """An environment as training would use it."""

    env: str
    backend: str
    scored_in: str
    """Environment that scores are measured in."""
    observation: str
    """Shape and dtype as stored, and the original space."""
    action_space: str
    """Action space of the environment."""
    actions: tuple[int, ...]
    """Choices of every factor."""
    findings: Findings
    entries: tuple[tuple[str, str, str], ...]
    """Path, space and encoding of each array in an observation."""
    notes: tuple[str, ...]
    """Notes that training prints before it starts."""
    recipe: str
    """Name of the recipe that `replay_bytes` is for."""
    replay_bytes: int
    """Bytes of its replay buffer, for one seed."""
    proposed: tuple[Proposal, ...]
    """Settings that it needs and that differ from the defaults or its preset."""

    @property
    def masks(self) -> str:
        """Describe where the action mask comes from."""
        return f"used, from {self.findings.masks}" if self.findings.masks else "none: every action is legal"

    def given(self, name: str) -> dict[str, float]:
        """Return the lowest and highest observed value of an entry; NaN if it was not measured."""
        for entry in self.findings.entries:
            if (entry.name or WHOLE) == name and entry.low <= entry.high:
                return {"low": entry.low, "high": entry.high}
        return {"low": math.nan, "high": math.nan}

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, with NaN as null."""
        findings = dataclasses.asdict(self.findings)
        for name in ("declared", "found"):
            findings[name] = findings[name].value if findings[name] else None
        findings["rewards"] = [value if np.isfinite(value) else None for value in findings["rewards"]]
        lengths = sorted(self.findings.lengths)
        findings["lengths"] = {"episodes": len(lengths)}
        if lengths:
            middle = lengths[len(lengths) // 2]
            findings["lengths"] |= {"shortest": lengths[0], "median": middle, "longest": lengths[-1]}
        entries = [
            {
                "name": name,
                "space": space,
                "becomes": becomes,
                **{end: value if np.isfinite(value) else None for end, value in self.given(name).items()},
            }
            for name, space, becomes in self.entries
        ]
        about = {**vars(self), **findings, "entries": entries}
        about.pop("findings")
        about["proposed"] = [each.to_json() for each in self.proposed]
        return {**about, "usable": not self.findings.faults}


def examine(
    env_id: str,
    options: Mapping[str, Any],
    seconds: float,
    wrap: Sequence[Wrapper] = (),
    bins: Sequence[int] = BINS,
) -> Checkup:
    """Play an environment with random actions, made and stepped as training does it.

    Args:
        wrap: wrappers, innermost first.
        bins: number of bins per joint, or one number for all joints.

    Raises:
        QhatError: the environment cannot be trained in.
    """
    entry, recipe = find(env_id, options), recipes.get(recipes.DEFAULT)
    made = make_any(env_id, recipe.num_envs, options=options, wrap=wrap, bins=bins)
    spec = made.spec
    try:
        if isinstance(made, GymnasiumEnvironment):
            findings = probe(made, steps=STEPS, seconds=seconds)
        elif isinstance(made, Environment):
            findings = _play(made, entry, seconds)
        else:
            findings = _play_hosted(made, entry, seconds)
    finally:
        made.close()
    scored_in = f"gymnasium {entry.reference}" if entry.reference else entry.backend
    shown, given = f"{spec.shape} {spec.dtype}", entry.observation
    shown += "" if given == shown else f", from {given}"
    size, layout = _replay_bytes(spec), laid_out(spec).layout
    shows = layout or Observations.plain(spec.shape, spec.dtype)
    about = shows.describe_entries(recipe.normalise)
    notes = layout.notes(spec.id, recipe.normalise) if layout else []
    free = psutil.virtual_memory().available
    learned = dataclasses.replace(findings, largest_return=_learned(findings.largest_return, wrap))
    asks = proposed(learned, recipe, TrainConfig.steps, size, free, known=preset_of(entry.id) is not None)
    return Checkup(
        entry.id, entry.backend, scored_in, shown, entry.actions, spec.actions.choices, findings,
        tuple(about), tuple(notes), recipes.DEFAULT, size, tuple(asks),
    )  # fmt: skip


def _learned(largest: float, wrap: Sequence[Wrapper]) -> float:
    """Return the largest return after the reward wrappers; 0 if it is unknown."""
    for part in of_rewards(wrap):
        largest *= abs(part.factor) if isinstance(part, RewardScale) else 0.0
    return largest


def _replay_bytes(spec: Spec) -> int:
    recipe = recipes.get(recipes.DEFAULT)
    program = Program.of(recipe, spec.shape, spec.dtype, spec.actions, spec.masked, layout=spec.layout)
    E, actions = recipe.num_envs, spec.actions
    observation = jax.ShapeDtypeStruct((E, *spec.shape), jnp.dtype(spec.dtype))
    legal = jax.ShapeDtypeStruct((E, actions.factors, actions.width), bool) if spec.masked else None
    seed = jax.eval_shape(program.init, jax.random.key(0), observation, None, legal)
    return nbytes((seed.ring, seed.sampler))


def _play(environment: Environment, entry: Entry, seconds: float) -> Findings:
    """Step an environment in compiled calls and examine its timesteps."""
    choices = jnp.asarray(environment.spec.actions.choices)
    E, F = environment.num_envs, len(environment.spec.actions.choices)

    def turn(carry: tuple[Any, Any], key: Any) -> tuple[tuple[Any, Any], Any]:
        state, legal = carry
        act, step = jax.random.split(key)
        action = jax.random.randint(act, (1, E, F), 0, choices)
        if legal is not None:
            odds = jnp.where(legal, 0.0, -jnp.inf)
            action = jax.random.categorical(act, odds, axis=-1)
        state, now = jax.vmap(environment.step)(state, action, step[None])
        axes = tuple(range(2, now.observation.ndim))
        moved = jnp.any(now.observation != now.successor, axis=axes)
        good = jnp.all(jnp.isfinite(now.successor.astype(jnp.float32)), axis=axes)
        looked = (now.reward, now.terminated | now.truncated, now.real, moved, good)
        return (state, now.legal), jax.tree.map(lambda leaf: leaf[0], looked)

    @jax.jit
    def call(carry: Any, key: Any) -> Any:
        return jax.lax.scan(turn, carry, jax.random.split(key, TURNS))

    state, _ = environment.start(jax.random.split(jax.random.key(0), 1))
    carry, calls = (state, jax.vmap(environment.legal)(state)), []
    until, began, spent = time.perf_counter() + seconds, 0.0, 0.0
    while len(calls) * TURNS < STEPS and (len(calls) < 2 or time.perf_counter() < until):
        began = time.perf_counter()
        carry, looked = jax.block_until_ready(call(carry, jax.random.key(len(calls))))
        # The first call includes the compilation.
        spent += time.perf_counter() - began if calls else 0.0
        calls.append(jax.tree.map(np.asarray, looked))
    rewards, ends, real, moved, good = (np.concatenate(part) for part in zip(*calls, strict=True))
    ends &= real
    rate = (len(ends) - TURNS) * E / max(spent, 1e-9)
    return _findings(environment.spec, entry, rewards, ends, real, moved, good, rate)


def _play_hosted(made: HostEnvironment, entry: Entry, seconds: float) -> Findings:
    """Step an environment of the host loop and examine its timesteps."""
    draw, spec, rows = np.random.default_rng(0), made.spec, []
    made.start()
    legal = made.legal()
    began = time.perf_counter()
    while len(rows) < STEPS and (not rows or time.perf_counter() < began + seconds):
        if legal is None:
            lead = (made.seeds, made.num_envs, len(spec.actions.choices))
            action = draw.integers(0, spec.actions.choices, lead)
        else:
            action = np.where(legal, draw.random(legal.shape), -1.0).argmax(-1)
        made.send(action)
        now = made.receive()
        legal, axes = now.legal, tuple(range(2, now.observation.ndim))
        moved = np.any(now.observation != now.successor, axis=axes)
        good = np.isfinite(now.successor.astype(np.float32)).all(axis=axes)
        rows.append((now.reward, now.terminated | now.truncated, now.real, moved, good))
    rate = len(rows) * made.seeds * made.num_envs / max(time.perf_counter() - began, 1e-9)
    rewards, ends, real, moved, good = (np.concatenate(part) for part in zip(*rows, strict=True))
    return _findings(spec, entry, rewards, ends & real, real, moved, good, rate)


def _findings(
    spec: Spec,
    entry: Entry,
    rewards: np.ndarray,
    ends: np.ndarray,
    real: np.ndarray,
    moved: np.ndarray,
    good: np.ndarray,
    rate: float,
) -> Findings:
    """Return what the rows `[T, E]` of a compiled environment show."""
    faults, warnings, found, final = [], [], None, None
    if not (good.all() and np.isfinite(rewards[real]).all()):
        faults.append(
            f"'{spec.id}' returns values that are not finite; expected finite numbers. Fix its step."
        )
    if ends.any():
        found = AutoresetMode.SAME_STEP if real.all() else AutoresetMode.NEXT_STEP
        final = True if found is AutoresetMode.NEXT_STEP else bool(moved[ends].any())
        if not final:
            faults.append(
                f"'{spec.id}' shows the next episode's first observation as the successor of every"
                " episode's last; expected the true one. Fix its `successor`."
            )
    else:
        warnings.append(
            f"No episode of '{spec.id}' ended in {len(ends):,} random steps, so its behaviour at an end was"
            " not observed."
        )
    valid, limit = rewards[real], entry.limit or _reference_limit(entry)
    low, high = float(valid.min()), float(valid.max())
    lengths = tuple(episode_lengths(ends, ~real))
    warnings += advice.on_limit(spec.id, limit, lengths)
    return Findings(
        copies=ends.shape[1],
        steps=len(ends),
        steps_per_second=rate,
        declared=None,
        found=found,
        final_observation=final,
        lengths=lengths,
        limit=limit,
        rewards=(low, high),
        others=share_of_others(valid),
        largest_return=largest_return(np.where(real, rewards, 0.0), ends | ~real, GAMMA),
        faults=tuple(faults),
        warnings=tuple(warnings),
        masks="its step" if spec.masked else "",
    )


def _reference_limit(entry: Entry) -> int | None:
    import gymnasium

    return gymnasium.spec(entry.reference).max_episode_steps if entry.reference else None


def machine() -> dict[str, Any]:
    """Return versions, extras, cores, memory, and whether EnvPool's compiled step works."""
    memory = psutil.virtual_memory()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "qhat": __version__,
        "packages": {name: version for name, version in versions().items() if name != "qhat"},
        "devices": [str(device) for device in jax.local_devices()],
        "cores": devices.cores(),
        "memory_gib": round(memory.total / 2**30, 1),
        "memory_free_gib": round(memory.available / 2**30, 1),
        "extras": {
            module: "installed" if installed(module) else install_command(module) for module in EXTRAS
        },
        "envpool_xla": _envpool_xla(),
    }


def _envpool_xla() -> str:
    """Step a pool in a compiled program and return the outcome."""
    if not installed("envpool"):
        return "not installed"
    try:
        pool = make("envpool:CartPole-v1", 2)
        state, _ = pool.start(jax.random.split(jax.random.key(0), 1))
        _, now = jax.jit(jax.vmap(pool.step))(state, jnp.zeros((1, 2, 1), jnp.int32), jax.random.split(
            jax.random.key(1), 1
        ))  # fmt: skip
        return "works" if bool(jnp.all(now.reward == 1.0)) else "gives wrong rewards"
    except Exception as error:
        return f"fails ({type(error).__name__}: {error})"
