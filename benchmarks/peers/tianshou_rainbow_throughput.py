"""Steps per second of tianshou's Rainbow on CartPole-v1. Prints one JSON object."""

import gymnasium as gym
from tianshou.algorithm.modelfree.c51 import C51Policy  # pyright: ignore[reportMissingImports]
from tianshou.algorithm.modelfree.rainbow import RainbowDQN  # pyright: ignore[reportMissingImports]
from tianshou.algorithm.optim import AdamOptimizerFactory  # pyright: ignore[reportMissingImports]
from tianshou.data import PrioritizedVectorReplayBuffer  # pyright: ignore[reportMissingImports]
from tianshou.utils.net.common import Net  # pyright: ignore[reportMissingImports]
from tianshou.utils.net.discrete import NoisyLinear  # pyright: ignore[reportMissingImports]
from tianshou_loop import arguments, measure

ATOMS = 51


def noisy(inputs: int, outputs: int) -> NoisyLinear:
    return NoisyLinear(inputs, outputs, 0.5)


def main() -> None:
    options = arguments(__doc__)
    environment = gym.make("CartPole-v1")
    stream = {"hidden_sizes": [64], "linear_layer": noisy}
    net = Net(
        state_shape=(4,),
        action_shape=2,
        hidden_sizes=[64],
        softmax=True,
        num_atoms=ATOMS,
        dueling_param=(stream, stream),
    )
    policy = C51Policy(
        model=net,
        action_space=environment.action_space,
        observation_space=environment.observation_space,
        num_atoms=ATOMS,
        v_min=0.0,
        v_max=100.0,
    )
    algorithm = RainbowDQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=1e-3),
        gamma=0.99,
        n_step_return_horizon=3,
        target_update_freq=250,
    )
    buffer = PrioritizedVectorReplayBuffer(100_000, buffer_num=1, alpha=0.5, beta=0.4, weight_norm=True)
    measure(policy, algorithm, buffer, environment, lambda batch: policy(batch).act, options)


if __name__ == "__main__":
    main()
