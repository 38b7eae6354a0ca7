"""`qhat.export`: writes a run's policy to a folder, which appears only when it is proven and complete."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from qhat import runtime
from qhat.agent.agent import Agent
from qhat.axes.actions import Actions
from qhat.axes.operations import Op
from qhat.deploy import graph, latency, parity, require_installed
from qhat.deploy.about import (
    NO_RANGES,
    Request,
    describe,
    ranges,
    read_meaning,
    read_safe_action,
    step_of,
    stream_of,
)
from qhat.deploy.card import card
from qhat.deploy.copies import Copies, copies_of, judge_of
from qhat.deploy.target import ExportTarget
from qhat.deploy.targets import targets_of
from qhat.engine.described import Exported, read_network, require_exportable
from qhat.engine.learner import Learner
from qhat.engine.recurrent import Recall, look
from qhat.environments.user_envs import EnvLike
from qhat.runs.run import Run, opened
from qhat.system.errors import QhatError, UsageError, require
from qhat.system.files import replacing_folder

RUNNER = "qhat_runtime.py"
SEED = 2_000_000
"""Seed of the proof's first episode; training and evaluations use other seeds."""


@dataclasses.dataclass(frozen=True)
class Export:
    """The exported files, and the results of the proof and the timing."""

    path: Path
    """The folder."""
    files: dict[str, int]
    """Size of each file in bytes."""
    parity: dict[str, Any]
    """The proof that the files act as the run does: `parity["passed"]`, and what was compared."""
    latency: dict[str, Any]
    """Microseconds of a decision, by runtime."""
    targets: dict[str, Path] = dataclasses.field(default_factory=dict)
    """The result of each target, by its name."""

    def __repr__(self) -> str:
        """Return where the files are, and whether the proof passed."""
        passed = "proof passed" if self.parity.get("passed") else "proof failed"
        return f"Export({str(self.path)!r}, {len(self.files)} files, {passed})"

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON has it."""
        fields = dataclasses.asdict(self)
        written = {name: str(path) for name, path in fields.pop("targets").items()}
        return {**fields, "path": str(self.path), **written}


def export(
    run: Run | Agent | Path | str,
    out: Path | str | None = None,
    *,
    checkpoint: str | int = "best",
    seed_index: int | None = None,
    name: str | None = None,
    safe_action: Any = None,
    timeout: float | None = None,
    control_period: float | None = None,
    env: str | EnvLike | None = None,
    observations: int = parity.OBSERVATIONS,
    targets: str | ExportTarget | Sequence[str | ExportTarget] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Export:
    """Write a run's policy to a folder that runs without JAX, and prove that it is the same policy.

    Args:
        run: a run, or its folder; or an `Agent`, which is written as a run first.
        out: folder to write; default: `export` in the run folder. An older export there is replaced.
        checkpoint: weights: `best`, `last`, or a checkpoint's step.
        seed_index: seed whose policy is exported; default: the best seed.
        name: of the policy.
        safe_action: action of the environment that the runner returns if it cannot trust an observation.
        timeout: age in seconds from which the runner rejects an observation.
        control_period: seconds between two decisions, if the environment gives none or another rate is
            wanted.
        env: the training environment, if it was an object from Python; an agent's, by any name.
        observations: smallest number of observations to compare on.
        targets: further results to write: `ros2`, `web`, `cpp`, `learner`, or an `ExportTarget`.
        progress: called with a description of each phase.

    Raises:
        UsageError: there is no such run or checkpoint, a value is wrong, or a part cannot be exported.
        QhatError: the exported policy differs from the trained one; nothing was written.
    """
    require_installed()
    if isinstance(run, Agent):
        if env is None:
            raise UsageError("An agent knows no environment; expected one: qhat.export(agent, env=...).")
        run = run.to_run(env, progress=progress)
    run = opened(run)
    require(
        not isinstance(env, str) or env == run.spec.id,
        f"env is '{env}', and the run's environment '{run.spec.id}'; expected no other id.",
    )
    env = None if isinstance(env, str) else env
    require_exportable(run.program.learner)
    for flag, value in (("timeout", timeout), ("control_period", control_period)):
        require(value is None or 0 < value < math.inf, f"{flag} is {value}; expected seconds, more than 0.")
    require(observations >= 1, f"observations is {observations}; expected 1 or more.")
    require(name is None or bool(name.strip()), "name is empty; expected a name.")
    target = (run.folder.path / "export" if out is None else Path(out)).absolute()
    require_replaceable(target)
    others = targets_of(targets)
    for other in others:
        other.require(run.folder.read_config())
    request = Request(
        run, checkpoint, run.seed_index(seed_index), name, safe_action, timeout, control_period
    )
    with contextlib.closing(copies_of(run, parity.COPIES, SEED, env)) as copies, _written(target) as new:
        made = _write(request, new, copies, env, observations, progress, others)
        made = dataclasses.replace(made, path=target)
    return dataclasses.replace(made, targets={other.name: other.write(target) for other in others})


def require_replaceable(target: Path) -> None:
    """Raise `UsageError` if `target` exists and is no export."""
    there = target.exists() or target.is_symlink()
    fine = target.is_dir() and not target.is_symlink()
    empty = fine and not any(target.iterdir())
    require(
        not there or (fine and (empty or (target / runtime.ABOUT).is_file())),
        f"'{target}' exists and is no export; expected a new folder, or an export to replace. Nothing was"
        " written.",
    )


@contextlib.contextmanager
def _written(target: Path) -> Iterator[Path]:
    """Yield a folder to write to. It becomes the target, or is removed if anything is raised."""
    try:
        with replacing_folder(target) as new:
            yield new
    except OSError as error:
        raise QhatError(f"'{target}' cannot be written: {error.strerror or error}.") from error


def _write(
    request: Request,
    new: Path,
    copies: Copies,
    env: EnvLike | None,
    observations: int,
    progress: Callable[[str], None],
    targets: Sequence[ExportTarget],
) -> Export:
    run, spec = request.run, request.run.spec
    # A run of an older version lacks some facts about its actions; the environment has them.
    actions = spec.actions.completed(copies.spec.actions)
    learner = run.program.learner
    weights = jax.tree.map(
        lambda leaf: jnp.asarray(leaf[request.seed_index]), run.weights(request.checkpoint)
    )
    trained = _trained(learner, weights, actions)
    first = copies.start()
    stack = _stack(spec.shape, spec.stack, first.observation)
    frame = spec.shape if stack is None else _frame(spec.shape, spec.stack)
    exported = read_network(learner, weights, spec.dtype, stack)
    form = (exported, frame, spec.dtype, actions, first.legal is not None)
    meaning = copies.named(read_meaning(request, env, frame))
    about = describe(request, exported, actions, meaning, frame, first.legal is not None, copies.terms)
    about["safe_action"] = read_safe_action(about, request.safe_action)
    about |= stream_of(run.program.recipe, weights, step_of(request))
    for other in targets:
        other.check(about)

    model = graph.build(*form, metadata={"name": about["name"]})
    parts = next((op for op in exported.ops if op["op"] == "parts"), None)
    taken = (stack, actions, first.legal is not None, parts, trained.units > 0)
    session = parity.Graph(runtime.open_graph(model.SerializeToString()), *taken)
    pictures = any(op["op"] in ("convolution", "parts") for op in exported.ops)
    found = parity.roll_out(
        copies,
        first,
        trained,
        session,
        [_whole_policy(about, exported, spec.shape) for _ in range(parity.COPIES if trained.units else 1)],
        observations,
        pictures,
        np.random.default_rng(0),
        progress,
    )
    about["observation"] |= ranges(meaning, found, stack) if parts is None else NO_RANGES
    model = graph.build(*form, metadata=_write_weights(new, about, exported))
    data = model.SerializeToString()
    (new / runtime.GRAPH).write_bytes(data)
    about["files"] = {
        name: {"sha256": _sha256(new / name), "bytes": (new / name).stat().st_size}
        for name in (runtime.WEIGHTS, runtime.GRAPH)
    }
    _write_json(new / runtime.ABOUT, about)
    shutil.copyfile(runtime.__file__, new / RUNNER)

    progress("playing whole episodes with onnxruntime alone")
    alone = parity.Graph(runtime.open_graph(data), *taken)
    # Read from the folder, as a robot does.
    runner = runtime.Policy.load(new, "numpy", "ignore")
    played = parity.play(copies, trained, alone, stack, runner, pictures)
    proof = {
        "passed": True,
        "tolerance": parity.TOLERANCE,
        "near_tie": parity.NEAR_TIE,
        "environment": _judge(request, env),
        "exploration": f"copy i of {copies.num_envs} acts by chance in i of {copies.num_envs - 1} steps",
        "distinct": len(found.distinct),
        "batches": {str(size): count for size, count in found.batches.items()},
        "onnxruntime": found.graph.to_json(),
        "numpy": found.numpy.to_json(),
        "episodes": played,
    }
    _write_json(new / "parity.json", proof)
    progress("measuring decisions")
    timing = latency.measure(new, session.newest(found.last))
    _write_json(new / "latency.json", timing)
    (new / "README.md").write_text(card(about, proof, timing), encoding="utf-8")
    files = {path.name: path.stat().st_size for path in sorted(new.iterdir())}
    return Export(new, files, proof, timing)


def _trained(learner: Learner, weights: Any, actions: Actions) -> parity.Trained:
    """Return a policy with these weights, as its learner computes it."""

    @jax.jit
    def compiled(weights: Any, batch: Any, states: Any, start: Any) -> tuple[Any, Any]:
        recall = None
        if states is not None:
            before = learner.recipe.memory.forget(states, start)
            recall = Recall.of(before, before)
        q, recall = look(learner, learner.preferences, weights, batch, None, recall)
        return q, None if recall is None else recall.after

    def values(batch: np.ndarray, states: Any, start: np.ndarray) -> tuple[np.ndarray, Any]:
        q, after = compiled(weights, batch, states, start)
        return np.asarray(q), None if after is None else np.asarray(after)

    return parity.Trained(values, actions, learner.network.joint, learner.recipe.memory.units)


def _stack(shape: tuple[int, ...], count: int, first: np.ndarray) -> Op | None:
    """Return the operation that stacks frames; `None` if the caller stacks them.

    Args:
        first: first observations of episodes, which show what comes before the first frame.
    """
    if count == 1:
        return None
    frames = np.moveaxis(first.reshape(len(first), count, -1), 1, 0)
    op = {"op": "stack", "count": count, "shape": list(shape)}
    if (frames == frames[-1:]).all():
        return {**op, "fill": "repeat"}
    if not frames[:-1].any():
        return {**op, "fill": "zeros"}
    return None


def _frame(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return the shape of one frame; without the stack's axis if a frame has length 1 along it."""
    return shape[1:] if shape[0] == count else (shape[0] // count, *shape[1:])


def _whole_policy(about: dict[str, Any], exported: Exported, shape: tuple[int, ...]) -> runtime.Policy:
    """Make the NumPy runner for whole stacks, as rollouts interleave several episodes."""
    ops = [op for op in exported.ops if op["op"] != "stack"]
    observation = {**about["observation"], "shape": list(shape), "low": [None], "high": [None]}
    whole = {**about, "observation": observation, "network": ops}
    return runtime.Policy(whole, runtime.planned(ops, exported.tensors), False, "ignore")


def _write_weights(new: Path, about: dict[str, Any], exported: Exported) -> dict[str, str]:
    """Write weights.safetensors; return the graph's metadata."""
    digest = runtime.digest(about)
    data = save({name: np.ascontiguousarray(value) for name, value in exported.tensors.items()},
                metadata={"policy_sha256": digest})  # fmt: skip
    (new / runtime.WEIGHTS).write_bytes(data)
    fields = ("environment", "source", "observation", "actions", "control_period")
    return {
        "format": str(about["format"]),
        "name": about["name"],
        "policy_sha256": digest,
        "weights_sha256": _sha256(new / runtime.WEIGHTS),
        **{field: json.dumps(about[field]) for field in fields},
    }


def _judge(request: Request, env: EnvLike | None) -> str:
    spec = request.run.spec
    if env is None and spec.reference and judge_of(request.run) is not None:
        return f"Gymnasium's {spec.reference}"
    return f"{spec.backend}'s {spec.id}"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
