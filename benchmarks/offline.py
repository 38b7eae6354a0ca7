"""Learning from recorded steps alone: `python benchmarks/offline.py` writes docs/results/offline.md.

Data are those of benchmarks/offline_data.py, made now where they are missing. All methods of a set have the
same network, batches and updates, and train the same seeds; the last weights of each seed play fresh greedy
episodes. Rows that are done are kept beside the page, and a second call continues.
`--d3rlpy` does the rows of its DiscreteCQL too, in an environment of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import qhat
from offline_data import SETS, TASKS, made, path_of
from offline_page import page
from peers_environment import ensure
from qhat.evaluation.scoring import played_in

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results" / "offline.md"
FIRST = 400
SAME: dict[str, Any] = {"hidden": (128, 128), "batch_size": 64}
LOGS: dict[str, Any] = {"training": "logs", "num_envs": 1, "replay_ratio": 1.0}
METHODS: dict[str, dict[str, Any]] = {
    "bc": {"recipe": "bc"},
    "double_dqn": {"recipe": "double_dqn", **LOGS},
    "cql": {"recipe": "cql"},
    "bcq": {"recipe": "bcq"},
    "iql": {"recipe": "iql"},
}
"""Settings of `qhat.train` of each; another method is another line."""
PEER, TWIN = "d3rlpy", "cql_as_d3rlpy"
TWINS: dict[str, dict[str, Any]] = {
    TWIN: {"recipe": "cql", "head": "expected:delta=1.0", "n_step": 1, "behaviour": "cql:alpha=1"}
}
"""What DiscreteCQL of d3rlpy does, for its table."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long all methods train in a task, and how they are judged."""

    updates: int
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    episodes: int = 50
    """Of each seed."""


PLANS = {
    "CartPole-v1": Plan(20_000),
    "LunarLander-v3": Plan(20_000),
    "TurtleBot3-v0": Plan(20_000, episodes=200),
    "Breakout-MinAtar": Plan(20_000, {"hidden": (128,)}),
    "WalkerWalk-v1": Plan(20_000, {"bins": (2,)}, episodes=20),
}


def main() -> None:
    """Train the rows that are missing, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(PLANS), nargs="*", help="tasks")
    parser.add_argument("--sets", choices=SETS, nargs="*", default=SETS[:3], help="of each task")
    parser.add_argument("--methods", choices=[*METHODS, *TWINS, PEER], nargs="*", default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--d3rlpy", action="store_true", help="train its DiscreteCQL too, and time it")
    parser.add_argument("--page", action="store_true", help="train nothing")
    parser.add_argument("--keep", type=Path, default=PAGE.with_suffix(".json"))
    parser.add_argument("--out", type=Path, default=PAGE)
    args = parser.parse_args()
    methods = [*args.methods, *([TWIN, PEER] if args.d3rlpy else [])]
    for env in () if args.page else args.only or PLANS:
        _note(args, "data", env, made(TASKS[env]))
        for kind in args.sets:
            for method in methods:
                if f"{env} {kind} {method}" in _done(args).get("rows", {}):
                    continue
                train = beside if method == PEER else trained
                result = train(env, kind, method, args.seeds)
                if result is not None:
                    print(env, kind, method, result, flush=True)
                    _note(args, "rows", f"{env} {kind} {method}", result)
    args.out.write_text(page(_done(args), PLANS, METHODS), encoding="utf-8")


def trained(env: str, kind: str, method: str, seeds: int) -> dict[str, Any]:
    """Train and judge all seeds of a method on a set."""
    plan, source = PLANS[env], path_of(env, kind)
    settings: dict[str, Any] = {**SAME, **{**METHODS, **TWINS}[method], **plan.settings}
    with tempfile.TemporaryDirectory() as folder:
        began, used = time.perf_counter(), time.process_time()
        run = qhat.train(
            env, demos=(str(source),), steps=plan.updates, seeds=seeds, seed=FIRST,
            eval_every=plan.updates, eval_episodes=1, save_every=plan.updates, run_dir=Path(folder) / "run",
            **settings,
        )  # fmt: skip
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        score = run.evaluate(plan.episodes, "last")
    return {
        "updates": plan.updates,
        "scores": [float(each) for each in score.per_seed],
        "success": score.success_per_seed,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "date": f"{datetime.date.today()}",
    }


def _done(args: argparse.Namespace) -> dict[str, Any]:
    return json.loads(args.keep.read_text()) if args.keep.exists() else {}


def _note(args: argparse.Namespace, part: str, name: str, result: Any) -> None:
    """Keep a result, beside what other processes may have added meanwhile."""
    done = _done(args)
    done.setdefault(part, {})[name] = result
    args.keep.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    args.out.write_text(page(done, PLANS, METHODS), encoding="utf-8")


def beside(env: str, kind: str, method: str, seeds: int) -> dict[str, Any] | None:
    """Train and judge d3rlpy's DiscreteCQL; `None` where it has no such actions.

    Its weights are played by the network that qhat trains: the same episodes, and the same number of them.
    """
    plan, source = PLANS[env], path_of(env, kind)
    settings: dict[str, Any] = {**SAME, **TWINS[TWIN], **plan.settings}
    with tempfile.TemporaryDirectory() as folder:
        run = qhat.train(
            env, demos=(str(source),), steps=1, seeds=seeds, seed=FIRST, eval_every=1, eval_episodes=1,
            run_dir=Path(folder) / "run", **settings,
        )  # fmt: skip
        actions, recipe = run.spec.actions, run.program.recipe
        if actions.factors > 1:
            return None
        hidden, parts, times = [str(units) for units in recipe.hidden], [], []
        for seed in range(FIRST, FIRST + seeds):
            out = Path(folder) / f"{seed}.npz"
            words = [
                ensure("offline"), "benchmarks/peers/offline_d3rlpy.py", source, "--updates", plan.updates,
                "--actions", actions.width, "--seed", seed, "--batch", recipe.batch_size, "--out", out,
                "--hidden", *hidden,
            ]  # fmt: skip
            done = subprocess.run(
                [str(word) for word in words], check=True, capture_output=True, text=True, cwd=ROOT
            )
            times.append(json.loads(done.stdout.splitlines()[-1]))
            parts.append(like(run.weights("last"), dict(np.load(out)), run.spec.shape))
        weights = jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
        fresh = played_in(
            env, run.program.learner, weights, lambda spec: None, actions=actions, episodes=plan.episodes,
            seed=1_000_000, env_kwargs={},
        )  # fmt: skip
    return {
        "updates": plan.updates,
        "scores": [float(each) for each in fresh.score.per_seed],
        "success": fresh.score.success_per_seed,
        "seconds": round(sum(each["seconds"] for each in times), 1),
        "cpu_seconds": round(sum(each["cpu_seconds"] for each in times), 1),
        "date": f"{datetime.date.today()}",
    }


def like(weights: Any, theirs: dict[str, np.ndarray], shape: tuple[int, ...]) -> Any:
    """Return d3rlpy's weights of one seed in the place of qhat's, `weights` `[S, ...]`."""
    one = jax.tree.map(lambda leaf: np.asarray(leaf[0]), weights)
    names = [name for name in theirs if name.endswith("weight")]
    layers = [(theirs[name], theirs[name.removesuffix("weight") + "bias"]) for name in names]
    if len(shape) == 3:
        # Pictures are [H, W, C] here and [C, H, W] there: kernels, and the inputs of the layer after them.
        (kernel, bias), (dense, offset), *rest = layers
        H, W, filters = shape[0] - 2, shape[1] - 2, len(kernel)
        kernel = kernel.transpose(2, 3, 1, 0)
        dense = np.moveaxis(dense.reshape(-1, filters, H, W), 1, -1).reshape(len(dense), -1)
        layers = [(kernel, bias), (dense, offset), *rest]
    places = [name for name in ("torso", "hidden0", "q_hidden", "q") if name in one]
    for place, (weight, bias) in zip(places, layers, strict=True):
        assert one[place]["weight"].size == weight.size, (place, one[place]["weight"].shape, weight.shape)
        one[place] = {"weight": weight.reshape(one[place]["weight"].shape), "bias": bias}
    return one


if __name__ == "__main__":
    main()
