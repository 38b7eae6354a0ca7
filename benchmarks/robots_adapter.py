"""Steps per second of mjlab's robots through qhat's adapter, beside the bare simulation.

    .venv-mjlab/bin/python benchmarks/robots_adapter.py

Both step the same simulation with the same actions, in turns; the medians of the turns are compared. The
bare loop does what any user has to: it resets robots that ended, and reads rewards and ends.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from qhat.environments.catalogue import find
from qhat.environments.isaaclab.mjlab import make
from qhat.environments.make_args import MakeArgs


def main() -> None:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", default="mjlab:Mjlab-Velocity-Flat-Unitree-Go1")
    parser.add_argument("--copies", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100, help="of a turn")
    parser.add_argument("--turns", type=int, default=12)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    robots = make(find(args.task), MakeArgs(args.copies))
    robots.start()
    rng = np.random.default_rng(0)
    actions = robots.spec.actions
    choices = rng.integers(actions.choices[0], size=(args.steps, 1, args.copies, actions.factors))

    def adapter() -> None:
        for choice in choices.astype(np.int32):
            robots.send(choice)
            robots.receive()

    def bare() -> None:
        import torch  # pyright: ignore[reportMissingImports]

        for choice in choices:
            tensor = torch.from_numpy(actions.to_env(choice[0]).astype(np.float32))
            _, reward, terminated, truncated, _ = robots.env.step(tensor)
            reward.numpy().copy()
            ended = (terminated | truncated).nonzero()[:, 0]
            if len(ended):
                robots.env.reset(env_ids=ended)

    turns: dict[str, list[float]] = {"bare": [], "adapter": []}
    loops: dict[str, Callable[[], Any]] = {"bare": bare, "adapter": adapter}
    for turn in range(args.turns):
        for name in list(loops) if turn % 2 else list(reversed(loops)):
            began = time.perf_counter()
            loops[name]()
            turns[name].append(args.steps * args.copies / (time.perf_counter() - began))
    medians = {name: statistics.median(speeds) for name, speeds in turns.items()}
    ratios = [one / other for one, other in zip(turns["adapter"], turns["bare"], strict=True)]
    print(f"{args.task}, {args.copies} robots")
    for name, speed in medians.items():
        print(f"  {name:<8} {speed:8,.0f} steps/s")
    print(f"  ratio    {statistics.median(ratios):8.3f}   ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
