"""TorchRL's DQN with its Ray collector on a local cluster. Prints one JSON object.

Double DQN with the network of TorchRL's CartPole example (120 and 84 units), uniform replay of 50,000,
batch 64, three-step returns, Adam 1e-3, gradients clipped at 10, epsilon from 1 to 0.05 within 5,000 steps,
one update per environment step. The example's other settings are for 500,000 steps. The target network is
copied every 100 updates: with 500, DQN needed twice as many steps.

The runners work while the learner learns: each sends 32 steps when it has them, and receives the weights
before its next ones. The next batch is waited for in a second thread, as the collector sends a runner
back to work only when it is asked for another batch. That thread sends a copy of the network: the loss
replaces the parameters of the network while it computes, and a runner that was sent the weights then
waited for the missing ones until the transport gave up.
"""

import argparse
import copy
from concurrent.futures import ThreadPoolExecutor

import cluster_loop
import torch  # pyright: ignore[reportMissingImports]
from slow_environment import Slow
from tensordict import TensorDictBase  # pyright: ignore[reportMissingImports]
from tensordict.nn import TensorDictSequential  # pyright: ignore[reportMissingImports]
from torchrl.collectors import Collector  # pyright: ignore[reportMissingImports]
from torchrl.collectors.distributed import RayCollector  # pyright: ignore[reportMissingImports]
from torchrl.data import (  # pyright: ignore[reportMissingImports]
    LazyTensorStorage,
    MultiStep,
    TensorDictReplayBuffer,
)
from torchrl.envs import EnvBase, GymEnv, GymWrapper  # pyright: ignore[reportMissingImports]
from torchrl.modules import MLP, EGreedyModule, QValueActor  # pyright: ignore[reportMissingImports]
from torchrl.objectives import DQNLoss, HardUpdate  # pyright: ignore[reportMissingImports]

GAMMA = 0.99
NEXT = ("observation", "reward", "done", "terminated")
FIELDS = ("observation", "action", "steps_to_next_obs", *(("next", name) for name in NEXT))


def cartpole() -> EnvBase:
    return GymEnv("CartPole-v1", categorical_action_encoding=True)


def slow() -> EnvBase:
    return GymWrapper(Slow(), categorical_action_encoding=True)


def with_ends(batch: TensorDictBase) -> TensorDictBase:
    """Say of returns of several steps whether their last step ended the episode.

    `MultiStep` takes the observation and the rewards of the later steps, and leaves the flags of the first
    one: the loss then added the value of a state in which the pole had fallen, and values diverged.
    """
    last = torch.arange(batch.numel()) + batch["steps_to_next_obs"].flatten() - 1
    for name in ("done", "terminated"):
        batch["next", name] = batch["next", name][last]
    return batch


class TorchRL:
    """The collector's batches, and the updates that they owe."""

    def __init__(self, options: argparse.Namespace) -> None:
        make = cartpole if options.task == "cartpole" else slow
        spec = make().action_spec
        self.network = MLP(
            in_features=4, out_features=2, num_cells=[120, 84], activation_class=torch.nn.ReLU
        )
        actor = QValueActor(self.network, in_keys=["observation"], spec=spec, action_space="categorical")
        self.exploration = EGreedyModule(spec=spec, eps_init=1.0, eps_end=0.05, annealing_num_steps=5_000)
        acting = copy.deepcopy(actor)
        self.weights = list(zip(acting.parameters(), actor.parameters(), strict=True))
        self.collector = RayCollector(
            [make] * options.runners,
            TensorDictSequential(acting, self.exploration),
            collector_class=Collector,
            frames_per_batch=32,
            total_frames=10**9,
            sync=False,
            update_after_each_batch=True,
            postproc=MultiStep(gamma=GAMMA, n_steps=3),
            remote_configs={"num_cpus": cluster_loop.CPUS_PER_RUNNER, "num_gpus": 0},
        )
        self.collector.set_seed(options.seed)
        self.replay = TensorDictReplayBuffer(storage=LazyTensorStorage(50_000), batch_size=64)
        self.loss = DQNLoss(actor, loss_function="smooth_l1", delay_value=True, double_dqn=True)
        self.loss.make_value_estimator(gamma=GAMMA)
        self.target = HardUpdate(self.loss, value_network_update_interval=100)
        self.optimiser = torch.optim.Adam(self.loss.parameters(), lr=1e-3)
        self.updates_per_step = options.updates_per_step
        self.steps = self.updates = 0
        self.due = 0.0
        self.collector.update_policy_weights_()
        self.batches = iter(self.collector)
        self.thread = ThreadPoolExecutor(1)
        self.arriving = self.thread.submit(next, self.batches)

    def advance(self) -> None:
        batch = self.arriving.result()
        with torch.no_grad():
            for acting, learned in self.weights:
                acting.copy_(learned)
        self.arriving = self.thread.submit(next, self.batches)
        self.replay.extend(with_ends(batch.select(*FIELDS)))
        self.steps += batch.numel()
        self.exploration.step(batch.numel())
        if self.steps < cluster_loop.LEARNING_STARTS:
            return
        self.due += batch.numel() * self.updates_per_step
        while self.due >= 1.0:
            self.update(self.replay.sample())
            self.due -= 1.0

    def update(self, batch: TensorDictBase) -> None:
        loss = self.loss(batch)["loss"]
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.loss.parameters(), 10.0)
        self.optimiser.step()
        self.target.step()
        self.updates += 1

    def greedy(self, observations: torch.Tensor) -> torch.Tensor:
        return self.network(observations).argmax(-1)

    def close(self) -> None:
        # The thread waits for a batch, and could not be ended with the collector.
        self.arriving.result()
        self.thread.shutdown()
        self.collector.shutdown()


if __name__ == "__main__":
    cluster_loop.main(__doc__, TorchRL, {"cartpole": 1.0, "slow": 1.0})
