"""cpprb's prioritised replay: sample + priority update, 1,000,000 slots, in microseconds."""

import numpy as np
from cpprb import PrioritizedReplayBuffer  # pyright: ignore[reportMissingImports]
from replay_timing import SLOTS, measure


def main() -> None:
    rng = np.random.default_rng(0)
    observation = {"shape": 4, "dtype": np.float32}
    buffer = PrioritizedReplayBuffer(
        SLOTS,
        {"obs": observation, "act": {}, "rew": {}, "next_obs": observation, "done": {}},
        alpha=0.6,
    )
    buffer.add(
        obs=rng.random((SLOTS, 4), np.float32),
        act=np.zeros(SLOTS),
        rew=np.ones(SLOTS),
        next_obs=rng.random((SLOTS, 4), np.float32),
        done=np.zeros(SLOTS),
        priorities=rng.random(SLOTS),
    )

    def update(batch: int, errors: np.ndarray) -> None:
        drawn = buffer.sample(batch, beta=0.4)
        buffer.update_priorities(drawn["indexes"], errors)

    measure(update, __doc__)


if __name__ == "__main__":
    main()
