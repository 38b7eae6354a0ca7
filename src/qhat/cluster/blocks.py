"""Blocks of steps: what an actor sends, and what the learner reads of them.

A block has T steps of K copies of the environment, and says each observation one time: what a step led to
is what the next step acts on. Two kinds of rows say more: where an episode ended, the true successor; and
where a stack of frames began anew, the whole stack. Of any other stack a block has the newest frame.

A block never changes. Its number (actor, incarnation, number from 0) says which one it is.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from qhat.environments.base import Timestep

TERMINATED, TRUNCATED, REAL, OVER, BROKEN = (1 << bit for bit in range(5))
FLAGS = (TERMINATED, TRUNCATED, REAL, OVER, BROKEN)


@dataclasses.dataclass(frozen=True)
class Block:
    """T steps of K copies."""

    actor: int
    incarnation: int
    """How many processes had the actor's place before."""
    number: int
    """From 0, without a gap, in one incarnation."""
    version: int
    """Gradient updates that the weights had which chose the actions."""
    steps: int
    """Transitions in it: rows of resets do not count."""
    seconds: float
    """Time that it took."""
    arrays: dict[str, np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self.arrays.values())


@dataclasses.dataclass(frozen=True)
class Rows:
    """A block as the learner stores it; leaves `[T, K, ...]`."""

    observation: np.ndarray
    """What was acted on."""
    action: np.ndarray
    after: np.ndarray
    """What is acted on next."""
    successor: np.ndarray
    numbers: np.ndarray
    """`[T, 7, K]` of float32: reward, terminated, truncated, real, score, over, broken."""
    legal: np.ndarray | None = None
    legal_after: np.ndarray | None = None
    legal_successor: np.ndarray | None = None
    info: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.action)

    @property
    def real(self) -> np.ndarray:
        """`[T, K]`, which rows are transitions."""
        return self.numbers[:, 3] > 0

    def leaves(self) -> list[tuple[str, np.ndarray]]:
        """Return the arrays that there are, by name."""
        fields = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return [(name, value) for name, value in fields if value is not None]


class Recorder:
    """Gathers the steps of a block.

    Args:
        observation: `[K, ...]`, what the first step acts on.
        legal: `[K, F, C]`, the actions that it allows; `None` where nothing is masked.
        stack: frames in an observation, along its first axis, the newest last.
    """

    def __init__(self, observation: np.ndarray, legal: np.ndarray | None, stack: int = 1):
        self._first, self._legal, self._stack = np.array(observation), legal, stack
        self._actions: list[np.ndarray] = []
        self._steps: list[Timestep] = []

    def add(self, action: np.ndarray, now: Timestep) -> None:
        """Add a step: the choices `[K, F]`, and what they led to, leaves `[K, ...]`."""
        # Copies: an environment may write its next step over these.
        observation = np.array(now.observation)
        successor = observation if now.successor is now.observation else np.array(now.successor)
        reward = np.array(now.reward, np.float32)
        self._actions.append(action)
        self._steps.append(now._replace(observation=observation, successor=successor, reward=reward))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what was gathered."""
        steps = self._steps
        action, after = np.stack(self._actions), self._joined("observation")
        terminated, truncated, real = (self._joined(name) for name in ("terminated", "truncated", "real"))
        finished = np.stack([step.finished for step in steps])
        broken = np.zeros_like(real) if steps[0].broken is None else self._joined("broken")
        flags = np.zeros(real.shape, np.uint8)
        for flag, value in zip(FLAGS, (terminated, truncated, real, finished, broken), strict=True):
            flags |= value.astype(np.uint8) * np.uint8(flag)
        arrays = {
            "action": action.astype(np.uint8 if action.max(initial=0) < 256 else np.int32),
            "first": self._first,
            "after": self._newest(after),
            "reward": self._joined("reward"),
            "flags": flags,
        }
        for name in ("score", "info", "legal"):
            if getattr(steps[0], name) is not None:
                arrays[name] = self._joined(name)
        if self._legal is not None:
            arrays["legal_first"] = self._legal
        if self._stack > 1:
            arrays |= self._begun_anew(after)
        return arrays | self._ends((terminated | truncated) & real)

    def _joined(self, name: str) -> np.ndarray:
        return np.stack([getattr(step, name) for step in self._steps])

    def _newest(self, observations: np.ndarray) -> np.ndarray:
        """The newest frames of observations `[T, K, ...]`; all of them where they are no stacks."""
        frames = observations.shape[2] // self._stack if self._stack > 1 else 0
        return observations[:, :, -frames:] if frames else observations

    def _begun_anew(self, after: np.ndarray) -> dict[str, np.ndarray]:
        """The stacks that do not continue the one before."""
        before, newest = np.concatenate([self._first[None], after[:-1]]), self._newest(after)
        onward = np.concatenate([before[:, :, newest.shape[2] :], newest], axis=2)
        T, K = after.shape[:2]
        at = np.flatnonzero((onward != after).reshape(T * K, -1).any(axis=1))
        return {"whole_at": at.astype(np.int32), "whole": after.reshape(T * K, *after.shape[2:])[at]}

    def _ends(self, ended: np.ndarray) -> dict[str, np.ndarray]:
        """The successors of the steps that ended episodes, where the next observation is another one."""
        steps, K = self._steps, ended.shape[1]
        other = np.array([step.successor is not step.observation for step in steps])
        at = np.flatnonzero(ended & other[:, None])
        if not len(at):
            return {}
        rows = [divmod(int(each), K) for each in at]
        ends = np.stack([steps[turn].successor[k] for turn, k in rows])
        found = {"end_at": at.astype(np.int32), "end": self._newest(ends[None])[0]}
        if steps[0].legal_successor is not None:
            found["legal_end"] = np.stack([steps[turn].legal_successor[k] for turn, k in rows])
        return found


def read(block: Block, stack: int = 1) -> Rows:
    """Return the rows of a block, with whole observations.

    Args:
        stack: as the recorder had it.
    """
    arrays = block.arrays
    after, observation = _observations(arrays, stack)
    T, K = arrays["flags"].shape
    successor = after
    if "end" in arrays:
        at = arrays["end_at"]
        successor = after.copy()
        ends = shifted(observation.reshape(T * K, *observation.shape[2:])[at], arrays["end"], stack)
        successor.reshape(T * K, *after.shape[2:])[at] = ends
    flags = [(arrays["flags"] & flag) > 0 for flag in FLAGS]
    terminated, truncated, real, over, broken = flags
    reward = arrays["reward"]
    numbers = (reward, terminated, truncated, real, arrays.get("score", reward), over, broken)
    legal = legal_after = legal_successor = None
    if "legal" in arrays:
        legal_after = legal_successor = arrays["legal"]
        legal = np.concatenate([arrays["legal_first"][None], legal_after[:-1]])
        if "legal_end" in arrays:
            legal_successor = legal_after.copy()
            ends = legal_successor.reshape(T * K, *legal_after.shape[2:])
            ends[arrays["end_at"]] = arrays["legal_end"]
    return Rows(
        observation=observation,
        action=arrays["action"].astype(np.int32),
        after=after,
        successor=successor,
        numbers=np.stack(numbers, axis=1, dtype=np.float32, casting="unsafe"),
        legal=legal,
        legal_after=legal_after,
        legal_successor=legal_successor,
        info=arrays.get("info"),
    )


def shifted(before: np.ndarray, newest: np.ndarray, stack: int) -> np.ndarray:
    """Move stacks `[N, K·c, ...]` on by the frames `newest` `[N, c, ...]`; return these if K is 1."""
    return newest if stack == 1 else np.concatenate([before[:, newest.shape[1] :], newest], axis=1)


def _observations(arrays: dict[str, np.ndarray], stack: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what is acted on next, and what was acted on, both `[T, K, ...]`."""
    first, newest = arrays["first"], arrays["after"]
    T, K = newest.shape[:2]
    if stack == 1:
        return newest, np.concatenate([first[None], newest[:-1]])
    after = np.empty((T, *first.shape), first.dtype)
    whole: dict[int, list[tuple[int, np.ndarray]]] = {}
    for at, value in zip(arrays.get("whole_at", ()), arrays.get("whole", ()), strict=True):
        whole.setdefault(int(at) // K, []).append((int(at) % K, value))
    before = first
    for turn in range(T):
        after[turn] = shifted(before, newest[turn], stack)
        for k, value in whole.get(turn, ()):
            after[turn, k] = value
        before = after[turn]
    return after, np.concatenate([first[None], after[:-1]])
