"""RLlib's DQN with environment runners on a local Ray cluster. Prints one JSON object.

The current API stack: EnvRunner, RLModule, Learner. CartPole-v1 has the settings of RLlib's tuned example:
double, dueling, prioritised replay, n drawn from 2 to 4, one layer of 256 before heads of 256, batch 32,
target every 500 steps. Three are changed, with which it learned sooner in the same time: learning rate 1e-3
in place of 5e-4, epsilon down to 0.05 within 5,000 steps in place of 25,000, and one update per two steps
in place of one per five. An update costs RLlib several times what it costs TorchRL, half of it in the
replay, which builds an episode object for each transition.

One round waits for all runners, then learns, then sends the weights: no runner steps meanwhile.
"""

import argparse
from typing import Any

import cluster_loop
import torch  # pyright: ignore[reportMissingImports]
from ray.rllib.algorithms.dqn import DQNConfig  # pyright: ignore[reportMissingImports]
from ray.rllib.core.rl_module.default_model_config import (  # pyright: ignore[reportMissingImports]
    DefaultModelConfig,
)
from ray.tune.registry import register_env  # pyright: ignore[reportMissingImports]
from slow_environment import Slow

BATCH = 32
MODULE = "default_policy"
# Steps of one runner per round. A range of n is accepted with "auto" only, which is the range's end.
FRAGMENTS = {"cartpole": ("auto", 5, (2, 5)), "slow": (16, 16, 3)}


class RLlib:
    """RLlib's algorithm, one round of sampling and learning after another."""

    def __init__(self, options: argparse.Namespace) -> None:
        register_env("slow", lambda _: Slow())
        fragment, length, n_step = FRAGMENTS[options.task]
        updates = options.updates_per_step * length * options.runners
        config = (
            DQNConfig()
            .environment("CartPole-v1" if options.task == "cartpole" else "slow")
            .env_runners(
                num_env_runners=options.runners,
                # Annotated as a whole number, documented as a fraction too.
                num_cpus_per_env_runner=cluster_loop.CPUS_PER_RUNNER,  # pyright: ignore[reportArgumentType]
                rollout_fragment_length=fragment,
            )
            .learners(num_learners=0)
            .training(
                lr=1e-3,
                gamma=0.99,
                train_batch_size_per_learner=BATCH,
                replay_buffer_config={
                    "type": "PrioritizedEpisodeReplayBuffer",
                    "capacity": 50_000,
                    "alpha": 0.6,
                    "beta": 0.4,
                },
                n_step=n_step,
                double_q=True,
                dueling=True,
                epsilon=[(0, 1.0), (5_000, 0.05)],
                target_network_update_freq=500,
                num_steps_sampled_before_learning_starts=cluster_loop.LEARNING_STARTS,
                # RLlib divides by the steps of one runner more than there are.
                training_intensity=updates * BATCH / (length * (options.runners + 1)),
            )
            .rl_module(
                model_config=DefaultModelConfig(
                    fcnet_hiddens=[256],
                    fcnet_activation="tanh",
                    fcnet_bias_initializer="zeros_",
                    head_fcnet_hiddens=[256],
                    head_fcnet_bias_initializer="zeros_",
                )
            )
            # How much one call of `train` does: its results cost time too.
            .reporting(min_sample_timesteps_per_iteration=500)
            .debugging(seed=options.seed, log_level="ERROR")
        )
        self.algorithm = config.build_algo()
        self.steps = self.updates = 0

    def advance(self) -> None:
        results = self.algorithm.train()
        self.steps = int(results["env_runners"]["num_env_steps_sampled_lifetime"])
        learned = results.get("learners", {}).get(MODULE, {})
        self.updates = int(learned.get("num_module_steps_trained_lifetime", 0)) // BATCH

    def greedy(self, observations: torch.Tensor) -> torch.Tensor:
        # The learner is in this process, and so are the newest weights.
        group: Any = self.algorithm.learner_group
        module = group._learner.module[MODULE]
        return module.forward_inference({"obs": observations})["actions"]

    def close(self) -> None:
        self.algorithm.stop()


if __name__ == "__main__":
    cluster_loop.main(__doc__, RLlib, {"cartpole": 0.5, "slow": 1.0})
