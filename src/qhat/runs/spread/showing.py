"""The progress of a whole run, from that of its groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qhat.recipes.config import TrainConfig
from qhat.runs.progress import GroupProgress, Progress
from qhat.runs.spread.member import Member


def progress_of(
    members: Sequence[Member], config: TrainConfig, seconds: float, faults: Sequence[str]
) -> Progress:
    """Return the run's progress: means over seeds, sums of speeds and counts, the largest shares."""
    known = [(member.progress, member.group.count) for member in members if member.progress is not None]
    groups = tuple(_group(member) for member in members)
    steps = [(member.step, member.group.count) for member in members]
    running = [now.steps_per_second for now in _running(members)]
    slowest = min((now for now, _ in known), key=lambda now: now.step, default=None)
    return Progress(
        step=int(_mean(steps)),
        steps=config.steps,
        seconds=seconds,
        score=_mean([(now.score, count) for now, count in known]),
        evaluation=_mean([(now.evaluation, count) for now, count in known]),
        epsilon=math.nan if slowest is None else slowest.epsilon,
        loss=_mean([(now.loss, count) for now, count in known]),
        clipped=max((now.clipped for now, _ in known), default=0.0),
        broken=sum(now.broken for now, _ in known),
        faults=tuple(faults),
        steps_per_second=float(np.nansum(running)),
        torso="" if slowest is None else slowest.torso,
        cut=sum(now.cut for now, _ in known),
        groups=groups,
    )


def _group(member: Member) -> GroupProgress:
    now = member.progress
    state = "" if member.node else "waits for a core"
    if member.ended is not None:
        state = member.ended.how
    elif member.node and now is not None and now.playing:
        state = "evaluates"
    return GroupProgress(
        seeds=str(member.group),
        node=member.node,
        step=member.step,
        score=math.nan if now is None else now.score,
        evaluation=math.nan if now is None else now.evaluation,
        state=state,
    )


def _running(members: Sequence[Member]) -> list[Progress]:
    """Return the progress of the groups that train; of all, when the last one has ended."""
    known = [member for member in members if member.progress is not None]
    now = [member for member in known if member.stream is not None] or known
    return [member.progress for member in now if member.progress is not None]


def _mean(values: Sequence[tuple[int | float, int]]) -> float:
    """Return the mean over seeds of what is a number."""
    finite = [(value, count) for value, count in values if math.isfinite(value)]
    total = sum(count for _, count in finite)
    return sum(value * count for value, count in finite) / total if total else math.nan
