"""flashbax's prioritised replay: sample + priority update, 1,000,000 slots, in microseconds.

Sampling and updating are one compiled call with a donated state, made from Python. A sample has no weights.
"""

import functools

import flashbax  # pyright: ignore[reportMissingImports]
import jax
import jax.numpy as jnp
import numpy as np
from replay_timing import BATCHES, SLOTS, measure


def main() -> None:
    buffers = {
        batch: flashbax.make_prioritised_flat_buffer(
            max_length=SLOTS, min_length=batch, sample_batch_size=batch, add_sequences=True,
            priority_exponent=0.6,
        )
        for batch in BATCHES
    }  # fmt: skip
    row = {"obs": jnp.zeros(4), "action": jnp.int32(0), "reward": 0.0, "done": jnp.bool_(False)}
    first = buffers[BATCHES[0]]
    rows = jax.tree.map(lambda leaf: jnp.zeros((SLOTS, *jnp.shape(leaf)), jnp.asarray(leaf).dtype), row)
    state = jax.jit(first.add, donate_argnums=0)(first.init(row), rows)

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def step(batch: int, state, key, errors):
        buffer, (key, draw) = buffers[batch], jax.random.split(key)
        sample = buffer.sample(state, draw)
        return buffer.set_priorities(state, sample.indices, errors), key, sample.experience

    key = jax.random.PRNGKey(0)

    def update(batch: int, errors: np.ndarray) -> None:
        nonlocal state, key
        state, key, drawn = step(batch, state, key, errors.astype(np.float32))
        jax.block_until_ready(drawn)

    measure(update, __doc__)


if __name__ == "__main__":
    main()
