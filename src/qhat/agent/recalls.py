"""The states of an agent's memory: one for every stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qhat.agent.stream_names import MOST_STREAMS, Stream
from qhat.engine.recurrent import Recall
from qhat.system.errors import require


@dataclasses.dataclass(slots=True)
class Kept:
    """Of one stream."""

    before: np.ndarray
    """State that its last observation met."""
    after: np.ndarray
    """State that its next observation meets."""
    acts: int = 0
    """Calls of `act` since the last `remember`."""


class Recalls:
    """The states of a memory of `units` numbers. The caller has to lock it."""

    def __init__(self, units: int):
        self.units = units
        self._kept: dict[Stream, Kept] = {}

    def batch(self, streams: Sequence[Stream]) -> Recall | None:
        """Return the states that the next observations of some streams meet; `None` without a memory."""
        if not self.units:
            return None
        fresh = np.zeros(self.units, np.float32)
        kept = [self._kept.get(stream) for stream in streams]
        after = np.stack([fresh if one is None else one.after for one in kept])
        return Recall.of(jnp.zeros_like(after), jnp.asarray(after))

    def act(self, streams: Sequence[Stream], recall: Recall | None, looks: bool = True) -> None:
        """Keep the states around the observations that some streams acted on.

        Args:
            looks: whether this was a call of `act`; else `remember` follows.
        """
        if recall is None:
            return
        before, after = np.array(recall.before), np.array(recall.after)
        for row, stream in enumerate(streams):
            old = self._kept.pop(stream, None)
            acts = (0 if old is None else old.acts) + looks
            self._kept[stream] = Kept(before[row], after[row], acts)
            if len(self._kept) > MOST_STREAMS:
                self._kept.pop(next(iter(self._kept)))

    def require_one(self, stream: Stream) -> bool:
        """Whether a stream acted since its last `remember`. Raises `UsageError` for several times."""
        kept = self._kept.get(stream)
        acts = 0 if kept is None else kept.acts
        require(
            acts <= 1,
            f"act was called {acts} times for stream {stream!r} since the last remember, and each call is a"
            " step of its memory; expected one call for each step. Look with q_values, which is none; play"
            " other episodes as another stream, or call cut() after them.",
        )
        return acts == 1

    def before(self, stream: Stream) -> np.ndarray | None:
        """Return the state that the last observation of a stream met; `None` without a memory."""
        return self._kept[stream].before if self.units else None

    def remembered(self, stream: Stream, ended: bool) -> None:
        """Note that a step was stored; begin anew where its episode ended."""
        if ended:
            self.forget(stream)
        elif self.units:
            self._kept[stream].acts = 0

    def forget(self, stream: Stream) -> None:
        """Begin anew: the next observation of a stream is the first of an episode."""
        self._kept.pop(stream, None)

    def saved(self) -> tuple[list[Stream], dict[str, np.ndarray]]:
        """Return the streams, and their states as arrays."""
        kept = list(self._kept.values())
        shapes = self.shapes(len(kept))
        values = {name: [getattr(one, name) for one in kept] for name in shapes}
        return list(self._kept), {
            name: np.array(rows, shapes[name].dtype).reshape(shapes[name].shape)
            for name, rows in values.items()
        }

    def shapes(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Return shapes and types of the arrays of `saved`."""
        states = jax.ShapeDtypeStruct((count, self.units), np.dtype(np.float32))
        counts = jax.ShapeDtypeStruct((count,), np.dtype(np.int32))
        return {"before": states, "after": states, "acts": counts}

    def restore(self, streams: Sequence[Stream], arrays: dict[str, Any]) -> None:
        """Restore what `saved` returned."""
        columns = (np.asarray(arrays[name]) for name in ("before", "after", "acts"))
        for stream, before, after, acts in zip(streams, *columns, strict=True):
            self._kept[stream] = Kept(np.array(before), np.array(after), int(acts))
