"""What the replay measurements of the peers share. Prints one JSON object."""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

SLOTS = 1_000_000
BATCHES = (32, 256)
PREPARED = 256


def measure(update: Callable[[int, np.ndarray], None], description: str | None) -> None:
    """Time `update(batch, errors)` in a loop, for every batch size, and print the mean.

    Args:
        update: samples a batch and updates its priorities from `[batch]` TD errors.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--iterations", type=int, default=10_000)
    iterations = parser.parse_args().iterations
    rng = np.random.default_rng(1)
    microseconds = {}
    for batch in BATCHES:
        errors = rng.random((PREPARED, batch))
        for i in range(min(iterations, 100)):
            update(batch, errors[i % PREPARED])
        start = time.perf_counter()
        for i in range(iterations):
            update(batch, errors[i % PREPARED])
        microseconds[str(batch)] = 1e6 * (time.perf_counter() - start) / iterations
    print(json.dumps({"microseconds": microseconds}))
