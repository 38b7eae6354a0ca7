"""Frames per second of qhat's recipes in MinAtar's Breakout, by PQN and from replay.

Prints one JSON object. On one core: `taskset -c 1 python benchmarks/pqn_speed.py --recipe pqn_minatar`.
Seconds of the processor are measured beside those of the clock, so that other programs on the machine count
little.
"""

import argparse
import json
import time

from qhat.recipes import get
from qhat.recipes.presets import PRESETS
from qhat.recipes.recipe import Recipe
from qhat.studies.benchmark.suites import suite_of
from qhat.system.devices import prepare

GAME = "Breakout-MinAtar"
OPTIONS = {"sticky_action_prob": 0.0, "max_episode_steps": 1_000}
"""purejaxql's games, by gymnax 0.0.6."""
RECIPES: dict[str, Recipe] = {
    "pqn_minatar": get("pqn_minatar"),
    "preset": PRESETS[GAME].recipe,
    "minatar-5m": suite_of("minatar-5m").task(GAME).settings["recipe"],
}


def measure(recipe: Recipe, frames: int, repeats: int) -> dict[str, list[float]]:
    """Train in one compiled call after another; the first is not measured."""
    import jax

    from qhat.engine.iteration import Program
    from qhat.engine.loop import Loop
    from qhat.environments.make import make

    recipe = recipe.scheduled(10_000_000)
    environment = make(f"gymnax:{GAME}", recipe.num_envs, options=OPTIONS)
    spec = environment.spec
    loop = Loop(Program.of(recipe, spec.shape, spec.dtype, spec.actions), environment)
    state, count = loop.init(jax.random.split(jax.random.key(0), 1)), frames // recipe.num_envs
    run = loop.compile(count)
    warmup = -(-recipe.first_update // recipe.num_envs) + recipe.iterations_per_update
    for _ in range(2):  # The first result may come back in another layout.
        state, _ = run(state, min(count, warmup))
    jax.block_until_ready(state)
    wall, cpu = [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        state, _ = run(state, count)
        jax.block_until_ready(state)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    return {"wall": wall, "cpu": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=RECIPES, required=True)
    parser.add_argument("--frames", type=int, default=163_840)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    prepare(1, threads=1)
    seconds = measure(RECIPES[options.recipe], options.frames, options.repeats)
    print(json.dumps({"frames": options.frames, **seconds}))


if __name__ == "__main__":
    main()
