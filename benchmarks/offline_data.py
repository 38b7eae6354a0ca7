"""Recorded steps of known quality: `python benchmarks/offline_data.py` writes runs/offline_data.

An expert is trained in each task, and one of its checkpoints is the medium policy. Each set is whole
episodes with the true successors, as `.npz` (docs/demonstrations.md): `random` of uniform actions, `medium`
with 10% of uniform actions, `expert` without any, and `mixed` of a third of the rows of each.
`qhat doctor` looks at each. Everything follows from the seeds below.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import qhat
from qhat.demonstrations.examined import examine
from qhat.environments.base import Environment, Timestep
from qhat.environments.make import make_any
from qhat.evaluation.statistics import stratified_bootstrap_ci
from qhat.runs.curves import read_evaluations
from qhat.runs.run import Run

FOLDER = Path(__file__).resolve().parent.parent / "runs" / "offline_data"
COLUMNS = ("observation", "action", "reward", "next_observation", "terminated", "truncated")
EPSILON = 0.1
"""Share of uniform actions in the medium policy."""
TRIED = 20
"""Episodes by which the medium policy is chosen."""
EXPERT_SEED, RANDOM_SEED, MEDIUM_SEED, EXPERT_DATA_SEED, CHOICE_SEED = 300, 11, 12, 13, 14


@dataclasses.dataclass(frozen=True)
class Task:
    """A task, and how its data are made."""

    env: str
    steps: int
    """Environment steps of the expert's training, with the preset of the task."""
    rows: int
    """Steps of each set, at least."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of the expert's training, beside the preset."""
    copies: int = 8
    """Of the environment that are played side by side."""
    checkpoints: int = 20
    """Weights among which the medium policy is chosen, evenly spaced in the training."""


TASKS = {
    task.env: task
    for task in (
        Task("CartPole-v1", 50_000, 20_000),
        Task("LunarLander-v3", 300_000, 50_000),
        Task("Breakout-MinAtar", 500_000, 50_000, {"learning_rate_steps": 500_000}),
        Task("TurtleBot3-v0", 250_000, 50_000),
        Task("WalkerWalk-v1", 250_000, 50_000),
    )
}
SETS = ("random", "medium", "mixed", "expert")


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(TASKS), nargs="*", help="tasks")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    for name in options.only or TASKS:
        print(json.dumps(made(TASKS[name], options.folder), indent=1), flush=True)


def path_of(env: str, kind: str, folder: Path = FOLDER) -> Path:
    """Return where a set is."""
    return folder / env / f"{kind}.npz"


def made(task: Task, folder: Path = FOLDER) -> dict[str, Any]:
    """Return what the sets of a task are, made now if they are missing."""
    about = folder / task.env / "about.json"
    if about.exists():
        return json.loads(about.read_text())
    about.parent.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    run = expert(task, about.parent / "expert")
    best = float(run.evaluate(100, "best").per_seed[0])
    trained = time.process_time() - began
    random = recorded(run, task, "best", 1.0, RANDOM_SEED)
    middle = (returns_of(random).mean() + best) / 2
    step, tried = medium_step(run, task, middle)
    sets = {
        "random": random,
        "medium": recorded(run, task, step, EPSILON, MEDIUM_SEED),
        "expert": recorded(run, task, "best", 0.0, EXPERT_DATA_SEED),
    }
    parts = [first_rows(sets[kind], task.rows // 3) for kind in ("random", "medium", "expert")]
    sets["mixed"] = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    rows = {}
    for kind in SETS:
        path = path_of(task.env, kind, folder)
        np.savez_compressed(path, allow_pickle=False, **sets[kind])
        rows[kind] = described(str(path), sets[kind])
    found = {
        "env": task.env,
        "expert_steps": task.steps,
        "expert_return": best,
        "medium_step": step,
        "halfway": middle,
        "tried": tried,
        "sets": rows,
        "training_seconds": round(trained),
        "seconds": round(time.process_time() - began),
    }
    about.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def expert(task: Task, folder: Path) -> Run:
    """Train the expert, with checkpoints on its way."""
    if (folder / "last").exists():
        return Run.open(folder)
    every = task.steps // task.checkpoints
    return qhat.train(
        task.env, steps=task.steps, seed=EXPERT_SEED, run_dir=folder, save_every=every, eval_every=every,
        keep=task.checkpoints, eval_episodes=30, **task.settings,
    )  # fmt: skip


def medium_step(run: Run, task: Task, middle: float) -> tuple[int, dict[int, float]]:
    """Return the checkpoint that plays nearest to `middle` with its uniform actions, and what was tried."""
    curve = read_evaluations(run.folder.path)
    scores = dict(zip(curve.step.tolist(), curve.score[0].tolist(), strict=True))
    kept = [int(path.name) for path in (run.folder.path / "checkpoints").iterdir()]
    near = sorted(kept, key=lambda step: abs(scores[step] - middle))[:8]
    few = dataclasses.replace(task, rows=1, copies=TRIED)
    tried = {
        step: float(returns_of(recorded(run, few, step, EPSILON, CHOICE_SEED)).mean())
        for step in sorted(near)
    }
    return min(tried, key=lambda step: abs(tried[step] - middle)), tried


def recorded(
    run: Run, task: Task, checkpoint: str | int, epsilon: float, seed: int
) -> dict[str, np.ndarray]:
    """Play whole episodes in every copy until each has its part of the rows.

    The last episode of a copy is the first one that ends after its part: the number of episodes depends
    on nothing that is still to come, and the mean return is not biased to short ones.
    """
    share = -(-task.rows // task.copies)
    steps, counts, enough = [], np.zeros(task.copies, np.int64), np.zeros(task.copies, bool)
    for before, action, now in played(run, task, checkpoint, epsilon, seed):
        steps.append((before, action, now, now.real & ~enough))
        counts += now.real & ~enough
        enough |= now.real & (now.terminated | now.truncated) & (counts >= share)
        if enough.all():
            break
    rows = np.stack([real for *_, real in steps])
    columns = {
        "observation": np.stack([before for before, *_ in steps]),
        "action": run.spec.actions.to_env(np.stack([action for _, action, *_ in steps])),
        "reward": np.stack([now.reward for _, _, now, _ in steps]),
        "next_observation": np.stack([now.successor for _, _, now, _ in steps]),
        "terminated": np.stack([now.terminated for _, _, now, _ in steps]),
        "truncated": np.stack([now.truncated & ~now.terminated for _, _, now, _ in steps]),
    }
    kept = [{name: column[rows[:, copy], copy] for name, column in columns.items()}
            for copy in range(task.copies)]  # fmt: skip
    return {name: np.concatenate([part[name] for part in kept]) for name in COLUMNS}


def played(
    run: Run, task: Task, checkpoint: str | int, epsilon: float, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, Timestep]]:
    """Yield observations, choices `[E, F]` and what came of them, without end."""
    actions, learner = run.spec.actions, run.program.learner
    environment = make_any(task.env, task.copies, (seed,), bins=actions.choices)
    assert isinstance(environment, Environment), task.env
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), run.weights(checkpoint))
    many, (E, F) = jnp.asarray(actions.choices), (task.copies, actions.factors)

    def turn(weights: Any, state: Any, observation: Any, key: Any) -> tuple[Any, Any, Timestep]:
        chance, draw, step_key = jax.random.split(key, 3)
        greedy, _ = learner.greedy(weights, observation)
        uniform = jax.random.randint(draw, (E, F), 0, many)
        action = jnp.where(jax.random.uniform(chance, (E, 1)) < epsilon, uniform, greedy)
        state, now = environment.step(state, action, step_key)
        return state, action, now

    go = jax.jit(jax.vmap(turn, in_axes=(None, 0, 0, None)))
    start, key = jax.random.split(jax.random.key(seed))
    state, observation = environment.start(start[None])
    try:
        while True:
            key, now_key = jax.random.split(key)
            state, action, now = go(weights, state, observation, now_key)
            host = jax.tree.map(lambda leaf: np.asarray(leaf[0]), now)
            yield np.asarray(observation[0]), np.asarray(action[0]), host
            observation = now.observation
    finally:
        environment.close()


def ends_of(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Return the last row of each episode."""
    return np.flatnonzero(columns["terminated"] | columns["truncated"])


def returns_of(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Return the sum of each episode's rewards."""
    starts = np.append(0, ends_of(columns)[:-1] + 1)
    return np.add.reduceat(columns["reward"].astype(np.float64), starts)


def first_rows(columns: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Return the first whole episodes that have so many rows together."""
    ends = ends_of(columns)
    last = ends[np.searchsorted(ends, rows - 1)]
    return {name: column[: last + 1] for name, column in columns.items()}


def described(source: str, columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the size of a set, its mean return with a 95% interval, and what `qhat doctor` finds."""
    returns = returns_of(columns)
    low, high = stratified_bootstrap_ci([[each] for each in returns], lambda x: float(np.mean(x))).ravel()
    contents = examine(source, columns)
    return {
        "rows": len(columns["reward"]),
        "episodes": len(returns),
        "mean": float(returns.mean()),
        "interval": [float(low), float(high)],
        "terminated": contents.terminated,
        "truncated": contents.truncated,
        "doctor": [trouble.found for trouble in contents.troubles],
    }


if __name__ == "__main__":
    main()
