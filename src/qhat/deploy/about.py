"""policy.json: what goes in, what happens to it, what comes out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from qhat import runtime
from qhat._version import __version__
from qhat.axes.actions import Actions
from qhat.axes.explore import EpsilonGreedy, NoExploration
from qhat.axes.optimiser import rate_at
from qhat.deploy import parity
from qhat.deploy.copies import judge_of
from qhat.deploy.meaning import MOST_NAMES, Meaning, meaning_of
from qhat.engine.calibration import RETURNS, STATISTICS
from qhat.engine.described import Exported, Op
from qhat.environments.base import Environment
from qhat.environments.observations import Observations
from qhat.environments.reference import reference_builder
from qhat.environments.term import Term
from qhat.environments.user_envs import EnvLike
from qhat.recipes.labels import label_of_run
from qhat.recipes.recipe import Recipe
from qhat.runs.run import Run
from qhat.system.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Request:
    """What is exported, and what the caller says of it."""

    run: Run
    checkpoint: str | int
    seed_index: int
    name: str | None
    safe_action: Any
    timeout: float | None
    control_period: float | None


def read_meaning(request: Request, env: EnvLike | None, frame: tuple[int, ...]) -> Meaning:
    run, made = request.run, None
    build = judge_of(run, env)
    if run.spec.backend == "qhat" and env is None:
        import qhat.robots  # noqa: F401

        drawn = dataclasses.replace(run.spec, reference=f"qhat/{run.spec.id.rpartition(':')[2]}")
        build = reference_builder(drawn, run.env_kwargs, run.wrap)
    if build is not None and not isinstance(build, Environment):
        made = build()
    try:
        return meaning_of(made, run.spec, run.wrap, frame)
    finally:
        if made is not None:
            made.close()


def describe(
    request: Request,
    exported: Exported,
    actions: Actions,
    meaning: Meaning,
    frame: tuple[int, ...],
    masked: bool,
    terms: Sequence[Term] = (),
) -> dict[str, Any]:
    """Write policy.json, but for what the rollouts will have seen, and the files."""
    run, spec = request.run, request.run.spec
    config = run.folder.read_config()
    recipe = label_of_run(config)
    source = run.folder.path.resolve().parts[-3:]
    kind = "joints" if actions.commands is not None else "multi_discrete" if actions.vector else "discrete"
    period = meaning.period if request.control_period is None else request.control_period
    return {
        "format": runtime.FORMAT if exported.joint is None else runtime.FORMAT_JOINT,
        "name": request.name or f"{spec.id.rpartition(':')[2].rpartition('/')[2]} {recipe}",
        "qhat": __version__,
        "environment": {
            "id": spec.id,
            "backend": spec.backend,
            "reference": spec.reference,
            "options": dict(run.env_kwargs),
            "wrap": config["wrap"],
        },
        "source": {
            "run": "/".join(source),
            "recipe": recipe,
            "checkpoint": request.checkpoint,
            "seed_index": request.seed_index,
            "step": step_of(request),
            "weights_sha256": run.weights_sha256(request.checkpoint),
        },
        "recipe": run.program.recipe.to_json(),
        "observation": {
            "shape": list(frame),
            "dtype": spec.dtype,
            "names": meaning.names,
            "units": meaning.units,
            **({"terms": [term.to_json() for term in terms]} if terms else entries_of(spec.layout)),
        },
        "network": exported.ops,
        "actions": {
            "kind": kind,
            "choices": list(actions.choices),
            "start": list(actions.start),
            "shape": list(actions.shape),
            "names": meaning.action_names,
            "labels": None if meaning.labels is None else [meaning.labels],
            "commands": None if actions.commands is None else [list(row) for row in actions.commands],
            "units": meaning.action_units,
            "dtype": actions.dtype,
            "masked": masked,
            **({} if exported.joint is None else {"joint": True}),
            **({} if meaning.drives is None else {"drives": [list(each) for each in meaning.drives]}),
        },
        "control_period": period,
        "safe_action": None,
        "timeout": request.timeout,
    }


def stream_of(recipe: Recipe, weights: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Return what policy.json says of a stream: settings, and statistics; nothing of other recipes.

    Args:
        recipe: as it was `scheduled` for the run.
        weights: of one seed.
        step: environment steps before these weights: schedules are where they were then.
    """
    training: Any = recipe.training
    optimiser: Any = recipe.optimiser
    if not training.streams:
        return {}
    returns, observed = weights[RETURNS], weights.get(STATISTICS)
    # The size of another strategy is no share of steps.
    explores = isinstance(recipe.explore, EpsilonGreedy | NoExploration)
    return {
        "stream": {
            "gamma": recipe.gamma,
            "trace_decay": training.trace_decay,
            "scale_rewards": training.scale_rewards,
            "cut": recipe.n_step_cut,
            "learning_rate": float(rate_at(recipe, jnp.int32(step))),
            "kappa": optimiser.kappa,
            "epsilon": float(recipe.explore.epsilon(jnp.int32(step))) if explores else None,
            "observations": 0.0 if observed is None else float(observed.count),
            "m2": None if observed is None else np.asarray(observed.m2, float).ravel().tolist(),
            "returns": {name: float(getattr(returns, name)) for name in ("count", "mean", "variance")},
        }
    }


NO_RANGES: dict[str, Any] = {
    "low": [None], "high": [None], "left_bounds": [], "seen_low": [None], "seen_high": [None],
}  # fmt: skip
"""Of observations that are packed: their bytes are no numbers."""


def entries_of(layout: Observations | None) -> dict[str, Any]:
    """Say how the environment's own observation becomes the array, where it is not that array."""
    if layout is None or (layout.is_one and not layout.entries[0].choices):
        return {}
    if layout.is_packed:
        order = [(entry, "uint8" if entry.is_bytes else "float32") for entry in layout.pictures]
        order += [(entry, "float32") for entry in layout.numbers]
    else:
        order = [(entry, layout.dtype) for entry in layout.entries]
    names = ("path", "shape", "choices", "start", "low", "high")
    return {
        "entries": [
            {name: value for name, value in entry.to_json().items() if name in names} | {"dtype": dtype}
            for entry, dtype in order
        ]
    }


def step_of(request: Request) -> int:
    """Environment steps after which the weights were these."""
    summary = request.run.summary()
    if request.checkpoint == "best":
        return int(summary["best_step"][request.seed_index])
    return int(summary["step"] if request.checkpoint == "last" else request.checkpoint)


def read_safe_action(about: dict[str, Any], value: Any) -> Any:
    """Read the safe action as the runner will. Raises `UsageError`."""
    if value is None:
        return None
    actions = about["actions"]
    numbers = np.ravel(value)
    if actions["kind"] != "joints" and (np.mod(numbers, 1) == 0).all():
        numbers = numbers.astype(int)
    if actions["kind"] == "discrete" and numbers.size == 1:
        numbers = numbers.reshape(())
    try:
        return np.asarray(runtime.read_action(actions, numbers, "safe_action")).tolist()
    except runtime.PolicyError as error:
        raise UsageError(str(error)) from None


def ranges(meaning: Meaning, found: parity.Rollouts, stack: Op | None) -> dict[str, Any]:
    """Say the bounds that hold, and what was seen, of one frame."""
    observed = [np.asarray(found.low), np.asarray(found.high)]
    declared = [
        np.full(observed[0].shape, np.nan) if bound is None else np.asarray(bound, float)
        for bound in (meaning.low, meaning.high)
    ]
    if stack is not None:
        width = len(observed[0]) // stack["count"]
        declared = [bound[-width:] for bound in declared]
        # Whatever place in the stack it was seen at.
        observed = [
            reach(part.reshape(stack["count"], width, *part.shape[1:]), axis=0)
            for reach, part in zip((np.min, np.max), observed, strict=True)
        ]
    left = (observed[0] < declared[0]) | (observed[1] > declared[1])
    several = observed[0].size <= MOST_NAMES

    def bounds(bound: np.ndarray, gone: np.ndarray, reach: Any) -> list[float | None]:
        # Pictures have one bound for all.
        values = np.where(gone | ~np.isfinite(bound), np.nan, bound).ravel()
        values = values if several else reach(values, keepdims=True)
        return [None if math.isnan(value) else float(value) for value in values.tolist()]

    no = np.zeros(left.shape, bool)
    return {
        "low": bounds(declared[0], left, np.min),
        "high": bounds(declared[1], left, np.max),
        "left_bounds": np.flatnonzero(left).tolist() if several else [],
        "seen_low": bounds(observed[0].astype(float), no, np.min),
        "seen_high": bounds(observed[1].astype(float), no, np.max),
    }
