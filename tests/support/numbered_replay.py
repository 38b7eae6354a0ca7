"""What replay has of `Numbered`, where an observation says which step of which episode it is."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from qhat.engine.replay.nstep import CONTINUES, NOTHING, TERMINATED, TRUNCATED
from qhat.runs.run import Run


def saved_state(folder: Path) -> Any:
    """Return the clock and the ring of a run's last checkpoint, named as in a state in memory."""
    last = Run.open(folder).folder.last()
    leaves = load_file(last / "state.safetensors")
    clock, ring = (
        {name.removeprefix(part): leaf for name, leaf in leaves.items() if name.startswith(part)}
        for part in ("clock/", "seeds/ring/")
    )
    paths = sorted(last.glob("replay-0-*.safetensors"), key=lambda path: int(path.stem.split("-")[2]))
    pieces = [load_file(path) for path in paths]
    for name in pieces[0]:
        rows = np.concatenate([piece[name] for piece in pieces], axis=1)
        ring |= {name: rows.reshape(1, -1, *rows.shape[2:]), "rows": rows.shape[1]}
    return SimpleNamespace(
        clock=SimpleNamespace(**clock), seeds=SimpleNamespace(ring=SimpleNamespace(**ring))
    )


def episodes_of(state: Any) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield each stored step: what was acted on, what followed in its ring, and its kind."""
    ring = state.seeds.ring
    for lane in range(ring.cursor.shape[1]):
        rows, used = ring.rows, int(ring.filled[0, lane])
        assert used < rows, "nothing was written over"
        part = slice(lane * rows, lane * rows + used + 1)
        frames, kinds = np.asarray(ring.observation[0, part]), np.asarray(ring.kind[0, part])
        rewards = np.asarray(ring.reward[0, part])
        for row in np.flatnonzero(kinds[:-1] != NOTHING):
            observation, after = frames[row], frames[row + 1]
            assert rewards[row] == observation[2] + 1
            yield observation, after, int(kinds[row])


def require_whole(state: Any, stored: int) -> collections.Counter[int]:
    """Require that each step is in replay one time, and leads to the next one of its own episode."""
    steps, kinds = collections.Counter(), collections.Counter()
    for observation, after, kind in episodes_of(state):
        steps[tuple(observation)] += 1
        kinds[kind] += 1
        assert tuple(after) == (*observation[:2], observation[2] + 1), "a transition across episodes"
        over = after[2] >= 11 + observation[0] % 5
        by_limit = bool(observation[1] % 2)
        if over:
            assert kind == (TRUNCATED if by_limit else TERMINATED)
        else:
            assert kind in (CONTINUES, TRUNCATED), "an episode that was cut is not terminated"
    assert max(steps.values()) == 1, "a step is there twice"
    assert sum(steps.values()) == stored, "a step is lost"
    return kinds
