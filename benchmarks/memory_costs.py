"""What a memory costs: `python benchmarks/memory_costs.py` prints µs of processor time of an update.

One core, observations of 3 numbers, hidden layers of 64 and 64: the recipe dqn with each memory, and the
same number of steps in a batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qhat import recipes
from qhat.axes import GRU, Actions, MinGRU, NoMemory
from qhat.engine.iteration import Program
from qhat.system import devices

UPDATES, REPEATS, ROWS, EPISODE = 50, 7, 10_000, 21


def microseconds(memory: Any, batch: int) -> float:
    """Return the least of some repeats, per update."""
    recipe = dataclasses.replace(
        recipes.get("dqn"), memory=memory, batch_size=batch, hidden=(64, 64), replay_capacity=ROWS
    )
    program = Program.of(recipe.validate(), (3,), "float32", Actions((4,)))
    seed = program.init(jax.random.key(0), jnp.zeros((1, 3)), None)
    kinds = np.where(np.arange(ROWS) % EPISODE == EPISODE - 1, 0, 1).astype(np.uint8)
    ring = dataclasses.replace(
        seed.ring, kind=jnp.asarray(kinds), filled=jnp.full(1, ROWS),
        observation=jax.random.normal(jax.random.key(1), (ROWS, 3)),
    )  # fmt: skip

    @jax.jit
    def run(learner: Any, sampler: Any) -> Any:
        def body(index: Any, carry: Any) -> Any:
            key = jax.random.fold_in(jax.random.key(2), index)
            return program.update(carry[0], ring, carry[1], key, jnp.int32(100), index + 1)[:2]

        return jax.lax.fori_loop(0, UPDATES, body, (learner, sampler))

    jax.block_until_ready(run(seed.learner, seed.sampler))
    spent = []
    for _ in range(REPEATS):
        began = time.process_time()
        jax.block_until_ready(run(seed.learner, seed.sampler))
        spent.append(time.process_time() - began)
    return min(spent) / UPDATES * 1e6


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--batch", type=int, default=256, help="steps of an update")
    batch = parser.parse_args().batch
    devices.prepare(1, threads=1)
    plain = microseconds(NoMemory(), batch)
    print("| memory | µs | beside `none` |\n|---|---|---|")
    for memory in (NoMemory(), MinGRU(), GRU()):
        cost = microseconds(memory, batch)
        print(f"| `{memory.name}` | {cost:,.0f} | {cost / plain:.1f} |")


if __name__ == "__main__":
    main()
