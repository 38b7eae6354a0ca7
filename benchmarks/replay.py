"""qhat's prioritised replay: sample + priority update, 1,000,000 slots, in microseconds.

`tree` is the sampler's draw and update alone; `full` also gathers the transitions and computes
their weights. Both run in one compiled loop over a full ring, as they do in training. Prints one
JSON object.
"""

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable
from typing import Any

from qhat.system.devices import prepare

SLOTS = 1_000_000
BATCHES = (32, 256)
PREPARED = 256


def filled(slots: int) -> tuple[Any, Any, Any]:
    """Return a full ring of 4-float observations, the sampler, and its state."""
    import jax
    import jax.numpy as jnp

    from qhat.axes.actions import Actions
    from qhat.axes.sampler import Prioritised
    from qhat.engine.replay.nstep import CONTINUES
    from qhat.engine.replay.ring import Ring

    observation_key, error_key = jax.random.split(jax.random.key(0))
    ring = dataclasses.replace(
        Ring.empty(1, slots, (4,), jnp.float32, Actions((2,))),
        observation=jax.random.normal(observation_key, (slots, 4)),
        reward=jnp.ones(slots),
        kind=jnp.full(slots, CONTINUES, jnp.uint8),
        filled=jnp.full(1, slots, jnp.int32),
    )
    sampler = Prioritised(alpha=0.6, beta=0.4)
    every = jnp.arange(slots)
    state = sampler.store(sampler.init(slots), every, jnp.ones(slots, bool))
    return ring, sampler, sampler.update(state, every, jax.random.uniform(error_key, (slots,)))


def compiled(sampler: Any, batch: int, what: str) -> Callable[..., Any]:
    """Return `run(state, ring, errors, key, count) → state, checksum`, compiled.

    The checksum reads all that was drawn, so that nothing is optimised away.
    """
    import jax
    import jax.numpy as jnp

    from qhat.engine.replay.ring import sample

    @functools.partial(jax.jit, donate_argnums=0)
    def run(state: Any, ring: Any, errors: Any, key: Any, count: Any) -> Any:
        def draw(state: Any, key: Any) -> tuple[Any, Any]:
            if what == "tree":
                slots, relative = sampler.draw(state, key, batch, ring.filled, ring.rows)
                return slots, relative
            transition, slots, weights = sample(
                ring, sampler, state, key, jnp.int32(0), batch=batch, n=1, gamma=0.99
            )
            return slots, (transition, weights)

        def body(index: Any, carry: Any) -> Any:
            state, checksum = carry
            slots, drawn = draw(state, jax.random.fold_in(key, index))
            state = sampler.update(state, slots, errors[index % PREPARED])
            return state, checksum + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(drawn))

        return jax.lax.fori_loop(0, count, body, (state, jnp.float32(0)))

    return run


def measure(slots: int, batch: int, what: str, iterations: int) -> float:
    """Return the mean time of one sample + update, in microseconds."""
    import jax

    ring, sampler, state = filled(slots)
    errors = jax.random.uniform(jax.random.key(1), (PREPARED, batch))
    run = compiled(sampler, batch, what)
    key = jax.random.key(2)
    state, _ = jax.block_until_ready(run(state, ring, errors, key, 100))
    start = time.perf_counter()
    jax.block_until_ready(run(state, ring, errors, key, iterations))
    return 1e6 * (time.perf_counter() - start) / iterations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=("tree", "full"), required=True)
    parser.add_argument("--iterations", type=int, default=50_000)
    options = parser.parse_args()
    prepare(1, threads=1)
    microseconds = {
        str(batch): measure(SLOTS, batch, options.what, options.iterations) for batch in BATCHES
    }
    print(json.dumps({"microseconds": microseconds}))


if __name__ == "__main__":
    main()
