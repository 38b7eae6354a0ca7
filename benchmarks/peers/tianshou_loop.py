"""What the throughput measurements of tianshou share: the command line, and the loop on CartPole-v1."""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from tianshou.data import Batch  # pyright: ignore[reportMissingImports]
from tianshou.utils.torch_utils import policy_within_training_step  # pyright: ignore[reportMissingImports]


def arguments(description: str | None, tasks: Iterable[str] = ()) -> argparse.Namespace:
    """Read the command line, with `--task` where there are several, and set PyTorch's threads."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if names := tuple(tasks):
        parser.add_argument("--task", choices=names, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=3_000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def measure(
    policy: Any,
    algorithm: Any,
    buffer: Any,
    environment: Any,
    act: Callable[[Any], Any],
    options: argparse.Namespace,
) -> None:
    """Train for the warm-up, time the steps after it, and print one JSON object."""
    observation, _ = environment.reset(seed=0)
    steps, updates, start, measured = 0, 0, 0.0, 0
    with policy_within_training_step(policy):
        while measured < options.steps:
            with torch.no_grad():
                action = int(act(Batch(obs=observation[None], info=[{}]))[0])
            after, reward, terminated, truncated, _ = environment.step(action)
            row = Batch(
                obs=observation[None], act=np.array([action]), rew=np.array([reward]),
                terminated=np.array([terminated]), truncated=np.array([truncated]),
                obs_next=after[None], info=[{}],
            )  # fmt: skip
            buffer.add(row, buffer_ids=[0])
            observation = environment.reset()[0] if terminated or truncated else after
            steps += 1
            if steps > 1_000:
                policy.train()
                algorithm.update(buffer=buffer, sample_size=32)
                updates += 1
            if steps == options.warmup:
                start, updates = time.perf_counter(), 0
            measured = max(steps - options.warmup, 0)
    seconds = time.perf_counter() - start
    print(json.dumps({"steps": measured, "updates": updates, "seconds": seconds}))
