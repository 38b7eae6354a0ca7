"""d3rlpy's DiscreteCQL on an .npz file of recorded steps. Writes its weights; prints one JSON object.

Everything that can be the same as in qhat's recipe `cql` is: network, batch, γ, α, Adam and its step size,
which falls linearly, the norm of the gradient, and the updates between two copies of the target network.
Its regression has the Huber loss too. It leaves out the last step of an episode that was truncated.
"""

import argparse
import dataclasses
import json
import time

import d3rlpy  # pyright: ignore[reportMissingImports]
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from d3rlpy.optimizers import AdamFactory, LRSchedulerFactory  # pyright: ignore[reportMissingImports]
from d3rlpy.optimizers.lr_schedulers import (  # pyright: ignore[reportMissingImports]
    register_lr_scheduler_factory,
)


@dataclasses.dataclass()
class Linear(LRSchedulerFactory):
    """Falls in a straight line."""

    updates: int = 1
    end: float = 0.1
    """Share of the first step size that is left at the last update."""

    def create(self, optim: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.LinearLR(optim, 1.0, self.end, self.updates)

    @staticmethod
    def get_type() -> str:
        return "linear"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--actions", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 128])
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--learning-rate-end", type=float, default=1e-4)
    parser.add_argument("--every", type=int, default=250, help="updates between copies of the target")
    parser.add_argument("--norm", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    register_lr_scheduler_factory(Linear)
    d3rlpy.seed(options.seed)
    columns = np.load(options.data)
    observation = columns["observation"]
    if observation.ndim == 4:
        encoder = d3rlpy.models.PixelEncoderFactory([[16, 3, 1]], feature_size=options.hidden[0])
        observation = np.moveaxis(observation, -1, 1).astype(np.uint8)
    else:
        encoder = d3rlpy.models.VectorEncoderFactory(options.hidden)
    ended = columns["terminated"].astype(np.float32), columns["truncated"].astype(np.float32)
    dataset = d3rlpy.dataset.MDPDataset(
        observation, columns["action"].reshape(-1, 1), columns["reward"], *ended,
        action_space=d3rlpy.ActionSpace.DISCRETE, action_size=options.actions,
    )  # fmt: skip
    end = options.learning_rate_end / options.learning_rate
    algorithm = d3rlpy.algos.DiscreteCQLConfig(
        batch_size=options.batch, gamma=options.gamma, alpha=options.alpha, encoder_factory=encoder,
        learning_rate=options.learning_rate, target_update_interval=options.every,
        optim_factory=AdamFactory(
            eps=1e-5,
            clip_grad_norm=options.norm,
            lr_scheduler_factory=Linear(options.updates, end),
        ),
    ).create(device="cpu:0")  # fmt: skip
    algorithm.build_with_dataset(dataset)
    began, used = time.perf_counter(), time.process_time()
    algorithm.fit(
        dataset, n_steps=options.updates, n_steps_per_epoch=options.updates, show_progress=False,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
    )  # fmt: skip
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    assert algorithm.impl is not None
    weights = algorithm.impl.q_function[0].state_dict()
    np.savez(options.out, **{name: value.numpy() for name, value in weights.items()})
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main()
