"""tianshou's segment tree alone: draw + priority update, 1,000,000 slots, in microseconds.

No transition is gathered and no weight computed. Priorities arrive already raised to α.
"""

import numpy as np
from replay_timing import SLOTS, measure
from tianshou.data.utils.segtree import SegmentTree  # pyright: ignore[reportMissingImports]


def main() -> None:
    rng = np.random.default_rng(0)
    tree = SegmentTree(SLOTS)
    tree[np.arange(SLOTS)] = rng.random(SLOTS)

    def update(batch: int, errors: np.ndarray) -> None:
        indices = tree.get_prefix_sum_idx(rng.random(batch) * tree.reduce())
        tree[indices] = errors

    measure(update, __doc__)


if __name__ == "__main__":
    main()
