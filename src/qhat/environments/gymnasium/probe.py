"""What an environment of Gymnasium's does, whatever it says: found by random actions before training.

A wrong autoreset mode teaches a wrong successor without a word. So the observations around an episode's end
are compared with those of fresh starts.
"""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from qhat.environments.gymnasium import advice
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.gymnasium.processes import Processes
from qhat.environments.gymnasium.record import Entry, Record, declared_by, limit_of, name_of
from qhat.environments.gymnasium.starts import Starts
from qhat.environments.gymnasium.workers import of_copies
from qhat.environments.reward_scale import largest_return
from qhat.system.errors import UsageError

PROBED, PROBE_SECONDS = 2_000, 3.0
"""Steps of every copy, and seconds, for which it is looked at before training."""
GAMMA = 0.995
"""Discount by which returns are looked at: the default recipe's."""
MOST, FEW = 0.8, 0.5
"""Shares from which, and up to which, something is said to happen at ends and not to."""
NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
HOLD = (SyncVectorEnv, AsyncVectorEnv, Processes)
"""Vector environments that keep the mode that they declare."""
DOES = {
    NEXT: "resets in the step after an episode's end",
    SAME: "resets in the step that ends an episode",
    DISABLED: "does not reset by itself",
}


@dataclasses.dataclass(frozen=True)
class Findings:
    """What random actions found."""

    copies: int
    steps: int
    """Steps of every copy, rows of resets included."""
    steps_per_second: float
    """Steps of all copies together."""
    declared: AutoresetMode | None
    """What `metadata["autoreset_mode"]` says."""
    found: AutoresetMode | None
    """What it does; `None` where no end was seen, or starts look like any other observation."""
    final_observation: bool | None
    """Whether the true last observation of an episode can be had; `None` where no end was seen."""
    lengths: tuple[int, ...]
    """Steps of the episodes that ended."""
    limit: int | None
    """Time limit in steps, where the environment says one."""
    rewards: tuple[float, float]
    """Smallest and largest; NaN where there was none."""
    others: float
    """Share of the steps whose reward is another than the commonest."""
    largest_return: float
    """Largest |discounted return| from any step on, γ = 0.99."""
    faults: tuple[str, ...]
    """Sentences, with the fix: what learning would go wrong by."""
    warnings: tuple[str, ...]
    """Sentences: what may surprise."""
    masks: str = ""
    """Where it says which actions are legal; empty where it does not."""
    entries: tuple[Entry, ...] = ()
    """Arrays within an observation, with the numbers that were given; empty where nobody looked."""

    @property
    def mode(self) -> AutoresetMode | None:
        """The mode to learn by."""
        return self.found or self.declared


def require_sound(findings: Findings) -> Findings:
    """Return findings without a fault. Raises `UsageError` with the first one and its fix."""
    if findings.faults:
        raise UsageError(findings.faults[0])
    return findings


def probed(made: GymnasiumEnvironment) -> GymnasiumEnvironment:
    """Look at a vector environment that somebody else wrote, and return it, ready to `start`.

    Raises:
        QhatError: it cannot be learned from; it is closed.
    """
    try:
        require_sound(probe(made, steps=PROBED, seconds=PROBE_SECONDS))
    except BaseException:
        made.close()
        raise
    return made


def probe(envs: VectorEnv | GymnasiumEnvironment, *, steps: int, seconds: float) -> Findings:
    """Step `envs` with random actions and look at what it does, above all at episodes' ends.

    Args:
        envs: is reset, and left in the middle of episodes: `begin` it before training.
        steps: of every copy, at most.
        seconds: after which to stop; a quarter of them for fresh starts.

    Raises:
        QhatError: what training would say of it too; its observations are no numbers, or of another shape
            than its space says.
    """
    if isinstance(envs, VectorEnv):
        mode = declared_by(envs) or NEXT
        envs = GymnasiumEnvironment(name_of(envs), envs, range(envs.num_envs), mode=mode)
    record = Record(envs)
    try:
        record.learn_starts(seconds / 4)
        until = time.perf_counter() + seconds
        while record.turns < steps and time.perf_counter() < until and not record.refusal:
            record.step()
    finally:
        envs.watch(None)
    return _findings(record, envs)


def _findings(record: Record, made: GymnasiumEnvironment) -> Findings:
    ends, rewards = record.ends, record.rewards
    found, final = None, None
    if ends.any():
        found = _found(record)
        if found is DISABLED and type(record.envs) in HOLD and not record.refusal:
            # An episode may begin anywhere: unlike the starts that were seen.
            found = record.declared
        final = _judge(record, found)
    else:
        _say_no_end(record)
    resets = (found or record.declared) is NEXT
    reset_rows = _after(ends) if resets else np.zeros_like(ends)
    if np.any(rewards[reset_rows] != 0):
        record.warnings["reset reward"] = (
            f"'{record.name}' gives rewards of up to {np.abs(rewards[reset_rows]).max():g} in rows of"
            " resets, which belong to no step: they are not learned from, and not counted."
        )
    counted, lengths = rewards[~reset_rows], tuple(episode_lengths(ends, reset_rows))
    low, high = (float(counted.min()), float(counted.max())) if counted.size else (math.nan, math.nan)
    limit = limit_of(made.envs)
    warnings = [
        *record.warnings.values(),
        *([] if record.standardises else advice.on_scales(record.name, record.entries)),
        *advice.on_memory(record.name, bool(of_copies(made.envs, "reuses"))),
        *advice.on_limit(record.name, limit, lengths),
    ]
    return Findings(
        copies=record.copies,
        steps=record.turns,
        steps_per_second=ends.size / max(record.stepping, 1e-9),
        declared=record.declared,
        found=found,
        final_observation=final,
        lengths=lengths,
        limit=limit,
        rewards=(low, high),
        others=share_of_others(counted),
        largest_return=largest_return(np.where(reset_rows, 0.0, rewards), ends, GAMMA),
        faults=tuple(record.faults.values()),
        warnings=tuple(warnings),
        masks=made.masks_at,
        entries=tuple(record.entries),
    )


def _found(record: Record) -> AutoresetMode | None:
    """The mode by what it does: which rows around ends are fresh starts."""
    rows, ends = record.rows, record.ends
    fresh = Starts.of(record.starts, rows).fresh(rows)
    clean, inside = ends & ~_after(ends), ~ends & ~_after(ends)
    followed, inside[:1] = _after(clean), False
    at_end = fresh[clean].mean()
    # Where observations within an episode look like starts, looking shows nothing.
    telling = bool(inside.any()) and fresh[inside].mean() <= FEW
    given = bool(record.finals) and record.declared is not DISABLED
    if at_end >= MOST and (given or telling):
        return SAME
    if at_end > FEW:
        return None
    if record.declared is DISABLED or record.refusal:
        return DISABLED
    if not followed.any():
        return None
    if fresh[followed].mean() >= MOST and ends[followed].mean() <= FEW:
        return NEXT
    return DISABLED if fresh[followed].mean() <= FEW else None


def _judge(record: Record, found: AutoresetMode | None) -> bool | None:
    """Note the faults of ends; return whether true last observations can be had."""
    declared = record.declared
    says = f"says {declared.value}" if declared else "says no autoreset mode"
    if found is None:
        record.warnings["mode"] = (
            f"What '{record.name}' does at an episode's end cannot be seen in its observations: its"
            f" starts look like the rest. It {says}, which is believed."
        )
    elif found is not declared and (declared or found is DISABLED):
        why = f" (the step after an end raised {record.refusal})" if record.refusal else ""
        record.faults["mode"] = _fix(record, f"{says} and {DOES[found]}{why}", found)
    if (found or declared) is not SAME:
        return True
    rows, at = record.rows, [(int(turn), int(copy)) for turn, copy in np.argwhere(record.ends)]
    if any(place not in record.finals for place in at):
        record.faults["final"] = _fix(
            record,
            f'{DOES[SAME]} and leaves its last observation out of info["final_obs"], so the successor would'
            " be the next episode's first observation",
        )
        return False
    if np.mean([np.array_equal(record.finals[place], rows[place]) for place in at]) >= MOST and (
        np.ptp(rows.reshape(-1, rows.shape[-1]), axis=0).any()
    ):
        record.faults["final"] = _fix(
            record,
            f'{DOES[SAME]} and gives the next episode\'s first observation as info["final_obs"], which'
            " would be learned as the successor",
        )
        return False
    return True


def _fix(record: Record, what: str, found: AutoresetMode | None = None) -> str:
    fix = "make the copies with gymnasium.vector.SyncVectorEnv, whose modes hold"
    if found is not None and found is not DISABLED:
        fix = f'set metadata["autoreset_mode"] = gymnasium.vector.AutoresetMode.{found.name}'
    return f"'{record.name}' {what}; expected one autoreset mode, declared and kept: {fix}."


def _say_no_end(record: Record) -> None:
    believed = f"it declares {record.declared.value}, which is believed" if record.declared else (
        "it declares no autoreset mode"
    )  # fmt: skip
    record.warnings["end"] = (
        f"No episode of '{record.name}' ended in {record.turns:,} random steps: what it does at an end was"
        f" not seen; {believed}."
    )


def _after(ends: np.ndarray) -> np.ndarray:
    """Which rows `[T, N]` follow an end."""
    return np.vstack([np.zeros_like(ends[:1]), ends[:-1]])


def share_of_others(rewards: np.ndarray) -> float:
    """Share of them that are not the commonest; 0 where there is none."""
    counts = np.unique(rewards, return_counts=True)[1]
    return float(1.0 - counts.max() / counts.sum()) if counts.size else 0.0


def episode_lengths(ends: np.ndarray, reset_rows: np.ndarray) -> list[int]:
    """Steps of every episode that ended."""
    lengths = []
    for copy in range(ends.shape[1]):
        is_step = ~reset_rows[:, copy]
        lengths += np.diff(np.cumsum(is_step)[ends[:, copy] & is_step], prepend=0).tolist()
    return lengths
