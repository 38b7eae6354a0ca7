"""Stable-Baselines3's SAC with hindsight for a given wall-clock time, then greedy episodes, in EnvPool.

Prints one JSON object.
"""

import argparse
import json
import time
from typing import Any

BEGAN = time.perf_counter()
"""Before the slow imports: they are part of what a user waits for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("env")
    parser.add_argument("--seconds", type=float, required=True, help="from the start of this process")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--episodes", type=int, default=100)
    args = parser.parse_args()

    import envpool
    import gymnasium
    import numpy as np
    import torch  # pyright: ignore[reportMissingImports]
    from stable_baselines3 import SAC, HerReplayBuffer  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]

    class Single(gymnasium.Env):
        """One copy of EnvPool's environment, in Gymnasium's API, with the reward of any goal."""

        def __init__(self, seed: int):
            self._pool: Any = envpool.make(args.env, env_type="gymnasium", num_envs=1, seed=seed)
            self.action_space = self._pool.action_space
            spaces = self._pool.observation_space.items()
            self.observation_space = gymnasium.spaces.Dict(dict(sorted(spaces)))

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return self._first(self._pool.reset()[0]), {}

        def step(self, action: Any) -> Any:
            observation, reward, terminated, truncated, info = self._pool.step(np.asarray(action)[None])
            success = {"is_success": float(info["is_success"][0])}
            return (
                self._first(observation),
                float(reward[0]),
                bool(terminated[0]),
                bool(truncated[0]),
                success,
            )

        def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
            return -(np.linalg.norm(achieved - desired, axis=-1) > 0.05).astype(np.float32)

        @staticmethod
        def _first(observation: Any) -> dict[str, np.ndarray]:
            return {key: np.array(value[0]) for key, value in observation.items()}

    class UntilTime(BaseCallback):
        """Stop when the time is over."""

        def _on_step(self) -> bool:
            return time.perf_counter() - BEGAN < args.seconds

    torch.set_num_threads(args.threads)
    # rl-zoo's settings for FetchReach, and but for a smaller step size those of the other tasks.
    model = SAC(
        "MultiInputPolicy",
        Single(args.seed),
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 4, "goal_selection_strategy": "future"},
        learning_rate=1e-3,
        gamma=0.95,
        batch_size=256,
        learning_starts=1_000,
        seed=args.seed,
        device="cpu",
    )
    model.learn(100_000_000, callback=UntilTime(), log_interval=None)
    seconds = time.perf_counter() - BEGAN
    judge, successes = Single(10_000 + args.seed), 0.0
    for _ in range(args.episodes):
        observation, over, info = judge.reset()[0], False, {"is_success": 0.0}
        while not over:
            action, _ = model.predict(observation, deterministic=True)
            observation, _, terminated, truncated, info = judge.step(action)
            over = terminated or truncated
        successes += info["is_success"]
    success = successes / args.episodes
    print(json.dumps({"steps": model.num_timesteps, "seconds": seconds, "success": success}))


if __name__ == "__main__":
    main()
