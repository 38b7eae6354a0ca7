"""Stable-Baselines3's SAC for a given wall-clock time, then greedy episodes. Prints one JSON object."""

import argparse
import json
import time

BEGAN = time.perf_counter()
"""Before the slow imports: they are part of what a user waits for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("env")
    parser.add_argument("--seconds", type=float, required=True, help="from the start of this process")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--episodes", type=int, default=10)
    args = parser.parse_args()

    import gymnasium
    import torch  # pyright: ignore[reportMissingImports]
    from stable_baselines3 import SAC  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.evaluation import evaluate_policy  # pyright: ignore[reportMissingImports]

    class UntilTime(BaseCallback):
        """Stop when the time is over."""

        def _on_step(self) -> bool:
            return time.perf_counter() - BEGAN < args.seconds

    torch.set_num_threads(args.threads)
    # rl-zoo's settings for both tasks: the defaults, with 10,000 random steps first.
    model = SAC("MlpPolicy", gymnasium.make(args.env), learning_starts=10_000, seed=args.seed, device="cpu")
    model.learn(100_000_000, callback=UntilTime(), log_interval=None)
    seconds = time.perf_counter() - BEGAN
    judge = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make(args.env))
    judge.reset(seed=10_000 + args.seed)
    returns, _ = evaluate_policy(model, judge, args.episodes, return_episode_rewards=True)
    print(json.dumps({"steps": model.num_timesteps, "seconds": seconds, "returns": returns}))


if __name__ == "__main__":
    main()
