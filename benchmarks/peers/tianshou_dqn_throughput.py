"""Steps per second of tianshou's DQN on CartPole-v1. Prints one JSON object."""

import gymnasium as gym
from tianshou.algorithm.modelfree.dqn import (  # pyright: ignore[reportMissingImports]
    DQN,
    DiscreteQLearningPolicy,
)
from tianshou.algorithm.optim import AdamOptimizerFactory  # pyright: ignore[reportMissingImports]
from tianshou.data import VectorReplayBuffer  # pyright: ignore[reportMissingImports]
from tianshou.utils.net.common import Net  # pyright: ignore[reportMissingImports]
from tianshou_loop import arguments, measure


def main() -> None:
    options = arguments(__doc__)
    environment = gym.make("CartPole-v1")
    policy = DiscreteQLearningPolicy(
        model=Net(state_shape=(4,), action_shape=2, hidden_sizes=[64, 64]),
        action_space=environment.action_space,
        observation_space=environment.observation_space,
        eps_training=0.1,
    )
    algorithm = DQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=1e-3),
        gamma=0.99,
        target_update_freq=250,
        is_double=False,
    )
    buffer = VectorReplayBuffer(100_000, buffer_num=1)

    def act(batch):
        return policy.add_exploration_noise(policy(batch).act, batch)

    measure(policy, algorithm, buffer, environment, act, options)


if __name__ == "__main__":
    main()
