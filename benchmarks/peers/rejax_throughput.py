"""Steps per second of rejax's DQN: gymnax's CartPole-v1, one compiled loop. Prints one JSON object."""

import argparse
import json
import time

import jax
from rejax import DQN  # pyright: ignore[reportMissingImports]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--warmup", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=6_000)
    options = parser.parse_args()
    algorithm = DQN.create(
        env="CartPole-v1",
        agent_kwargs={"activation": "relu"},
        num_envs=1,
        buffer_size=100_000,
        fill_buffer=1_000,
        batch_size=32,
        num_epochs=1,
        ddqn=False,
        learning_rate=1e-3,
        target_update_freq=250,
        polyak=0.0,
        total_timesteps=options.warmup + options.steps,
    )

    def train(state, count):
        return jax.lax.fori_loop(0, count, lambda _, now: algorithm.train_iteration(now), state)

    compiled = jax.jit(train)
    state = jax.block_until_ready(compiled(algorithm.init_state(jax.random.PRNGKey(0)), options.warmup))
    start = time.perf_counter()
    jax.block_until_ready(compiled(state, options.steps))
    seconds = time.perf_counter() - start
    # One update after every step: `num_epochs`, once `fill_buffer` is passed.
    print(json.dumps({"steps": options.steps, "updates": options.steps, "seconds": seconds}))


if __name__ == "__main__":
    main()
