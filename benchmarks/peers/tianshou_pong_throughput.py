"""Steps per second of tianshou's DQN on Pong. Prints one JSON object.

The pipeline is tianshou's: its factory's environments, `Collector`, a `VectorReplayBuffer` of single frames
that are stacked when sampled, and a loop that collects and updates, as its trainer does. The work is that
of the other peers: the Nature network, batch 32, an update per four steps, replay of 20,000, updates from
step 1,000. Three remarks:

- The factory takes EnvPool where it is installed, and `make bench` installs it. tianshou's wrappers in
  Python do not start with NumPy 2.4: `WarpFrame` makes a space of the abstract type `np.integer`.
- tianshou's network leaves the scaling to its user; here it is done in PyTorch, in float32.
- tianshou's target also evaluates the online network on the next observations, even without Double.
"""

import json
import time
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from tianshou.algorithm.modelfree.dqn import (  # pyright: ignore[reportMissingImports]
    DQN,
    DiscreteQLearningPolicy,
)
from tianshou.algorithm.optim import AdamOptimizerFactory  # pyright: ignore[reportMissingImports]
from tianshou.data import Collector, VectorReplayBuffer  # pyright: ignore[reportMissingImports]
from tianshou.env.atari.atari_network import DQNet  # pyright: ignore[reportMissingImports]
from tianshou.env.atari.atari_wrapper import AtariEnvFactory  # pyright: ignore[reportMissingImports]
from tianshou.highlevel.env import EnvMode  # pyright: ignore[reportMissingImports]
from tianshou.utils.torch_utils import policy_within_training_step  # pyright: ignore[reportMissingImports]
from tianshou_loop import arguments

COPIES = {"pong": 1, "pong-8": 8}
FRAMES, BATCH, CAPACITY, STARTS, TARGET = 4, 32, 20_000, 1_000, 2_500


class ScaledNetwork(DQNet):
    """tianshou's Nature network, on bytes."""

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[torch.Tensor, Any]:
        """Return the values of the actions, and the state that was given."""
        return super().forward(torch.as_tensor(obs).float() / 255, state, info)


class Training:
    """Environments, collector, buffer and algorithm, with counts of steps and updates."""

    def __init__(self, copies: int) -> None:
        """Fill the replay with `STARTS` random steps."""
        factory = AtariEnvFactory("PongNoFrameskip-v4", FRAMES)
        environments = factory.create_venv(copies, EnvMode.TRAINING, seed=0)
        actions = environments.action_space
        self.policy = DiscreteQLearningPolicy(
            model=ScaledNetwork(FRAMES, 84, 84, int(actions.n)), action_space=actions, eps_training=0.05
        )
        self.algorithm = DQN(
            policy=self.policy,
            optim=AdamOptimizerFactory(lr=1e-4),
            target_update_freq=TARGET,
            is_double=False,
            huber_loss_delta=1.0,
        )
        self.buffer = VectorReplayBuffer(
            CAPACITY, copies, stack_num=FRAMES, ignore_obs_next=True, save_only_last_obs=True
        )
        self.collector = Collector(self.policy, environments, self.buffer, exploration_noise=True)
        self.collector.reset()
        self.collector.collect(n_step=STARTS, random=True)
        self.per_collect, self.updates = max(copies, 4), 0

    @property
    def steps(self) -> int:
        """Environment steps so far, of all copies together."""
        return self.collector.collect_step

    def run(self, until: int) -> None:
        """Collect and update until that many steps are done."""
        with policy_within_training_step(self.policy):
            while self.steps < until:
                self.collector.collect(n_step=self.per_collect)
                for _ in range(self.per_collect // 4):
                    self.algorithm.update(buffer=self.buffer, sample_size=BATCH)
                    self.updates += 1


def main() -> None:
    """Train for the warm-up, then time the steps after it."""
    options = arguments(__doc__, COPIES)
    training = Training(COPIES[options.task])
    training.run(options.warmup)
    steps, updates, start = training.steps, training.updates, time.perf_counter()
    training.run(steps + options.steps)
    seconds = time.perf_counter() - start
    done = {"steps": training.steps - steps, "updates": training.updates - updates, "seconds": seconds}
    print(json.dumps(done))


if __name__ == "__main__":
    main()
