"""How the copies of an environment are made, whatever its backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from qhat.axes.actions import BINS
from qhat.environments.wrappers import Wrapper


@dataclasses.dataclass(frozen=True)
class MakeArgs:
    """What a run says of its environments."""

    num_envs: int = 1
    """Copies for each seed."""
    seeds: Sequence[int] = (0,)
    """Numbers of the seeds that will run side by side, spread evenly over `devices`. An environment that is
    part of the program serves any number; one that lives outside it makes copies for each."""
    devices: int = 1
    since: int = 0
    """Step that a run resumes from; environments whose state cannot be restored begin new episodes."""
    vector: str = "sync"
    """How Python steps the copies: `sync` or `async`."""
    seconds: float = 60.0
    """How long a step in Python may take."""
    restarts: int = 0
    """How often processes are restarted after they are lost."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """For the environment's constructor."""
    wrap: Sequence[Wrapper] = ()
    """Wrappers, innermost first. Reward wrappers belong to the learner and are ignored here."""
    bins: Sequence[int] = BINS
    """Commands of every joint, or one number for all, where actions are continuous."""
    log: tuple[str, ...] = ()
    """Names of values of `info` that timesteps have."""
