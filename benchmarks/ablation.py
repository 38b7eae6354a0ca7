"""The former default recipe, one change at a time: `python benchmarks/ablation.py` writes docs/results.

Every row trains the same tuning seeds (1000 and up; results elsewhere use other seeds). A policy is
played greedily, once from each of 20 starts, with the time limit lifted to 3,000 steps, so that one
play tells three things: the score under the limit of 500, how long the policy really lasts, and
whether it then falls over (the pole) or drifts off the track (the cart).
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qhat.axes.explore import EpsilonGreedy
from qhat.axes.optimiser import Adam
from qhat.axes.policy import Double, Greedy
from qhat.axes.sampler import Prioritised
from qhat.axes.target import Hard, Soft
from qhat.recipes.recipe import Recipe
from qhat.system import devices

BAR, LIMIT, LIFTED = 475.0, 500, 3_000
TRACK = 2.4
"""Half the length of the track: a cart beyond it ends the episode."""
STARTS = 20
ROOT = Path(__file__).resolve().parent.parent
FORMER = Recipe(
    policy=Double(), n_step=20, gamma=0.995, target=Hard(every=250), batch_size=64, replay_ratio=0.5,
    explore=EpsilonGreedy(start=1.0, end=0.1, steps=5_000), learning_starts=1_000, learning_rate=2e-3,
    learning_rate_end=1e-4, learning_rate_steps=50_000, optimiser=Adam(1e-5), max_gradient_norm=10.0,
)  # fmt: skip
"""The default recipe until its returns were cut."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One composition, and whether it *trains* without the time limit."""

    name: str
    recipe: Recipe
    limited: bool = True


def rows() -> list[Row]:
    """What it was before this table, and its neighbours."""
    base = replace(FORMER, target=Soft(tau=0.01))
    return [
        Row("the starting point", base),
        Row("gamma 0.99", replace(base, gamma=0.99)),
        Row("gamma 0.98", replace(base, gamma=0.98)),
        Row("n 10", replace(base, n_step=10)),
        Row("n 10, trained without the time limit", replace(base, n_step=10), limited=False),
        Row("n 1", replace(base, n_step=1)),
        Row("greedy in place of Double", replace(base, policy=Greedy())),
        Row("hard target, every 250: the former default", FORMER),
        Row("step size constant", replace(base, learning_rate_end=None)),
        Row("prioritised", replace(base, sampler=Prioritised())),
    ]


def main() -> None:
    """Train and look at every row; write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1000, help="number of the first seed")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "ablation.md")
    options = parser.parse_args()
    devices.prepare(2 if options.seeds % 2 == 0 else 1)
    lines = []
    for row in rows():
        if options.only in row.name:
            lines.append(f"| {row.name} | " + " | ".join(study(row, options.seed, options.seeds)) + " |")
            print(lines[-1], flush=True)
    if not options.only:
        options.out.write_text(page(options, lines), encoding="utf-8")


def study(row: Row, first: int, seeds: int) -> list[str]:
    """Train one row; return its cells."""
    import jax

    from qhat.engine.iteration import Program
    from qhat.engine.loop import Loop

    environment = cartpole(LIMIT if row.limited else 1_000_000)
    spec = environment.spec
    program = Program.of(row.recipe, spec.shape, spec.dtype, spec.actions)
    loop = Loop(program, environment, jax.local_device_count())
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(0), seed))(
        np.arange(first, first + seeds, dtype=np.uint32)
    )
    state = loop.init(keys)
    run = loop.compile(10_000)
    cells: list[str] = []
    lasted = drifted = np.zeros((seeds, STARTS))
    log: Any = None
    for _ in range(2):
        for _ in range(5):
            state, log = run(state, 10_000)
        lasted, drifted = play(program, state.seeds.learner.online)
        scores = np.minimum(lasted, LIMIT).mean(axis=1)
        low = ", ".join(f"{score:.0f}" for score in np.sort(scores)[:3])
        cells.append(f"{np.sum(scores >= BAR)} ({low})")
    q = np.nanmean(np.asarray(log.metrics.q), axis=1)
    ceiling = 1.0 / (1.0 - row.recipe.gamma)
    shares = [off_the_track(lasted, drifted, within) for within in (LIMIT, LIFTED)]
    return [*cells, f"{np.median(lasted):.0f}", *shares, f"{q.max():,.0f} / {ceiling:.0f}"]


def off_the_track(lasted: np.ndarray, drifted: np.ndarray, within: int) -> str:
    """Return which share of the plays that ended before step `within` left the track."""
    ended = np.asarray(lasted < within)
    return f"{np.mean(drifted[ended]):.0%} of {np.sum(ended)}" if np.any(ended) else "none ended"


def cartpole(limit: int) -> Any:
    """gymnax's CartPole with another time limit."""
    from qhat.environments.catalogue import find
    from qhat.environments.jax.gymnax import GymnaxEnvironment

    environment = GymnaxEnvironment(find("CartPole-v1"), 1)
    environment._params = environment._params.replace(max_steps_in_episode=limit)
    return environment


def play(program: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return, for every seed and start, the steps that a policy lasts, and whether it drifted off."""
    import jax
    import jax.numpy as jnp

    environment = cartpole(LIFTED + 1)

    def one(parameters: Any, key: jax.Array) -> tuple[Any, Any]:
        state, observation = environment.reset(key)

        def body(carry: tuple) -> tuple:
            state, observation, steps, _, _ = carry
            action, _ = program.learner.greedy(parameters, observation)
            state, timestep = environment.step(state, action, key)
            off = jnp.abs(timestep.successor[0, 0]) > TRACK
            return state, timestep.observation, steps + 1, timestep.terminated[0], off

        def lasting(carry: tuple) -> jax.Array:
            return ~carry[3] & (carry[2] < LIFTED)

        out = jax.lax.while_loop(lasting, body, (state, observation, 0, jnp.bool_(False), jnp.bool_(False)))
        return out[2], out[4]

    keys = jax.random.split(jax.random.key(7), STARTS)
    plays = jax.jit(jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None)))
    lasted, drifted = plays(weights, keys)
    return np.asarray(lasted), np.asarray(drifted)


def page(options: argparse.Namespace, lines: list[str]) -> str:
    """Return the page that is written to the documentation."""
    return "\n".join(
        [
            "# The default recipe with a soft target (tau = 0.01), one change at a time",
            "",
            f"CartPole-v1, tuning seeds {options.seed} to {options.seed + options.seeds - 1},"
            f" {datetime.date.today()}.",
            "",
            f"    python benchmarks/ablation.py --seeds {options.seeds} --seed {options.seed}",
            "",
            f"Greedy policies of the last step, {STARTS} starts each, played on to {LIFTED:,} steps",
            "without the time limit (which training had, unless the row says otherwise). Columns: seeds",
            f"whose mean under the limit of {LIMIT} is ≥ {BAR:.0f} (the lowest three means); the median",
            f"length of a play; of the plays that ended before step {LIMIT}, and of all that ended, the",
            "share that left the track (the others dropped the pole); the largest over seeds of mean",
            "Q(s, a) in the last 10,000 steps, beside 1/(1−γ), which no return exceeds.",
            "",
            "| change | 50k | 100k | median length | off the track before 500 | off it at all | Q |",
            "|---|---|---|---|---|---|---|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
