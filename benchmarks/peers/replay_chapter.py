"""The chapter's prioritised memory: sample + priority update, 1,000,000 slots, in microseconds."""

import numpy as np
from chapter import PrioritisedMemory
from replay_timing import SLOTS, measure


def filled() -> PrioritisedMemory:
    """Return a full memory; the sums are made level by level, as adding 10⁶ items takes minutes."""
    rng = np.random.default_rng(0)
    memory = PrioritisedMemory(SLOTS)
    tree = memory.tree
    tree.tree[SLOTS - 1 :] = rng.random(SLOTS)
    for depth in reversed(range(int(np.log2(SLOTS)) + 1)):
        nodes = np.arange(2**depth - 1, min(2 ** (depth + 1), SLOTS) - 1)
        tree.tree[nodes] = tree.tree[2 * nodes + 1] + tree.tree[2 * nodes + 2]
    observations = rng.random((SLOTS, 4), np.float32)
    for slot in range(SLOTS):
        tree.data[slot] = (observations[slot], 0, 1.0, observations[slot], False)
    tree.n_entries = SLOTS
    return memory


def main() -> None:
    memory = filled()

    def update(batch: int, errors: np.ndarray) -> None:
        _, indices, _ = memory.sample(batch)
        for index, priority in zip(indices, errors**memory.alpha, strict=True):
            memory.update(index, priority)

    measure(update, __doc__)


if __name__ == "__main__":
    main()
