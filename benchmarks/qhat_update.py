"""Milliseconds of one DQN update of an image network, in a compiled loop. Prints one JSON object."""

import argparse
import json
import time

from qhat.axes.actions import Actions
from qhat.axes.target import Hard
from qhat.axes.torso import Impala, MinAtar, Nature
from qhat.recipes.recipe import Recipe
from qhat.system.devices import prepare

BATCH, ACTIONS = 32, 6
NETWORKS = {
    "nature": (Nature(), 512, (4, 84, 84)),
    "impala": (Impala(), 256, (4, 84, 84)),
    "minatar": (MinAtar(), 128, (10, 10, 4)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--updates", type=int, default=50)
    options = parser.parse_args()
    prepare(1, threads=options.threads)
    import jax
    import jax.numpy as jnp
    import numpy as np

    from qhat.engine.compiler import compiled
    from qhat.engine.learner import Learner, LearnerState
    from qhat.engine.replay.ring import Transition

    torso, hidden, shape = NETWORKS[options.network]
    recipe = Recipe(torso=torso, hidden=(hidden,), batch_size=BATCH, target=Hard(every=1_000))
    learner = Learner.of(recipe, shape, Actions((ACTIONS,)))
    drawn = np.random.default_rng(0)
    before, after = (jnp.asarray(drawn.integers(0, 256, (BATCH, *shape), np.uint8)) for _ in range(2))
    action = jnp.asarray(drawn.integers(0, ACTIONS, (BATCH, 1)), jnp.int32)
    reward, ones = jnp.asarray(drawn.normal(size=BATCH), jnp.float32), jnp.ones(BATCH)

    def several(state: LearnerState, batch: Transition) -> LearnerState:
        def one(state: LearnerState, number: jax.Array) -> tuple[LearnerState, None]:
            return learner.update(state, batch, ones, jax.random.key(0), number)[0], None

        return jax.lax.scan(one, state, jnp.arange(1, options.updates + 1))[0]

    run = compiled(several, donate_argnums=0)
    batch = Transition(before, action, reward, 0.99 * ones, after)
    state = jax.block_until_ready(run(learner.init(jax.random.key(0)), batch))
    start = time.perf_counter()
    jax.block_until_ready(run(state, batch))
    print(json.dumps({"milliseconds": 1e3 * (time.perf_counter() - start) / options.updates}))


if __name__ == "__main__":
    main()
