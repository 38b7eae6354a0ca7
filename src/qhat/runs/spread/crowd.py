"""Watches the tasks of all groups: restarts those that die, compares evaluations, and ends the run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qhat.evaluation.outcomes import Played
from qhat.recipes.config import TrainConfig
from qhat.runs.callback import Callback, Evaluation, answer
from qhat.runs.progress import Progress
from qhat.runs.run import Run
from qhat.runs.spread.events import USAGE, Ended, Event, Saved, Shown, Started, Warned
from qhat.runs.spread.member import Died, Member
from qhat.runs.spread.showing import progress_of
from qhat.runs.spread.whole import Whole
from qhat.runs.stop import Stop, StoppedError
from qhat.system.errors import QhatError, UsageError, warn

WAIT = 0.2
"""Seconds between two looks at signals and at the time."""
SHOWS = 0.25
"""Least seconds between two reports of progress."""
NEAR = 5.0
"""Seconds within which all groups have to reach an evaluation at which they can stop together."""
LATE = 3 * NEAR
"""Seconds after which they stop where they are."""
PATIENT = 60.0
"""Seconds that groups wait for one that has no core, before they go on without it."""


class Crowd:
    """The groups of a run while they train."""

    def __init__(
        self,
        whole: Whole,
        members: Sequence[Member],
        board: Any,
        config: TrainConfig,
        show: Callable[[Progress], None],
        callback: Callback | None,
        stop: Stop,
    ):
        self._whole, self._members, self._board, self._config = whole, members, board, config
        self._show, self._callback, self._stop = show, callback, stop
        self._failure: QhatError | None = None
        self._faults: list[str] = []
        self._warned: set[str] = set()
        self._answered = 0
        self._is_waiting = config.stop_at is not None or callback is not None
        self._stopping: float | None = None
        """When the groups were asked to stop."""
        self._shown = 0.0

    def run(self) -> Run:
        """Train until every group has ended.

        Raises:
            Interrupted: the run was asked to stop.
            QhatError: a group failed; the others were saved.
        """
        for member in self._members:
            if not self._is_complete(member):
                member.submit()
        self._answer()
        while self._streams():
            self._pump()
            self._answer()
            self._watch()
            self._release()
            self._report()
        self._report(now=True)
        return self._finished()

    def cancel(self) -> None:
        """Give up what still runs."""
        for member in self._members:
            member.cancel()

    def _is_complete(self, member: Member) -> bool:
        """Whether a group has been trained to the end in an earlier call."""
        return member.newest >= self._config.steps and self._config.resume

    def _streams(self) -> list[Any]:
        return [member.stream for member in self._members if member.stream is not None]

    def _pump(self) -> None:
        """Take the events that are there, or wait for a moment."""
        import ray

        ready, _ = ray.wait(self._streams(), num_returns=1, timeout=WAIT, fetch_local=False)
        for member in self._members:
            if member.stream is not None and member.stream in ready:
                self._take(member)

    def _take(self, member: Member) -> None:
        try:
            event = member.next()
        except Died as died:
            warn(f"{died} It continues from step {member.newest:,}.", stacklevel=5)
            if self._stopping is None:
                member.submit()
            return
        except QhatError as error:
            self._fail(error)
            return
        if event is not None:
            self._react(member, event)

    def _react(self, member: Member, event: Event) -> None:
        match event:
            case Started():
                self._whole.begin(event.config)
            case Shown():
                self._faults += [
                    each for each in self._filled(event.progress.faults) if each not in self._faults
                ]
            case Warned() if event.sentence not in self._warned:
                self._warned.add(event.sentence)
                warn(*self._filled([event.sentence]), stacklevel=6)
            case Saved():
                self._whole.merge()
            case Ended(how="usage" | "failed"):
                self._fail(self._error(member, event))
            case _:
                pass

    def _filled(self, sentences: Sequence[str]) -> list[str]:
        return [each.replace("{run}", str(self._whole.folder.path)) for each in sentences]

    def _error(self, member: Member, ended: Ended) -> QhatError:
        (sentence,) = self._filled([ended.sentence])
        if ended.how == USAGE:
            return UsageError(sentence)
        return QhatError(sentence)

    def _fail(self, error: QhatError) -> None:
        self._failure = self._failure or error
        self._halt()

    def _answer(self) -> None:
        """Compare the evaluations that all groups have; tell the groups whether to go on."""
        common = set.intersection(*(set(member.scores) for member in self._members))
        for step in sorted(at for at in common if at > self._answered):
            stop = self._stop
            if self._callback is not None or self._config.stop_at is not None:
                fresh = Evaluation(
                    step, self._played(step), self._whole.run, lambda at=step: self._save(at)
                )
                answer(fresh, stop, self._config.stop_at, self._callback)
            self._answered = step
            if (stop.reached or stop.raised) and self._stopping is None:
                self._stopping = time.monotonic()
                self._change(answered=step, ends=step)
                return
            self._change(answered=step)

    def _played(self, step: int) -> Played:
        """Return the means of an evaluation, as one episode of each seed."""
        scores = np.concatenate([member.scores[step] for member in self._members])[:, None]
        zero = np.zeros_like(scores)
        known = all(step in member.success_rates for member in self._members)
        rates = (
            np.concatenate([member.success_rates[step] for member in self._members])[:, None]
            if known
            else zero
        )
        return Played(scores, zero, np.full_like(zero, known), rates, zero, zero, zero, zero)

    def _save(self, step: int) -> None:
        """Have every group write a checkpoint of its evaluation of `step`, where it waits."""
        self._change(save=step)
        while not all(member.has(step) for member in self._members) and self._failure is None:
            if not self._streams() or self._stop.should_stop():
                raise UsageError(
                    f"The run of evaluation {step:,} cannot be saved: its groups are not all at that step"
                    " any more."
                )
            self._pump()
        self._whole.merge()

    def _watch(self) -> None:
        """Ask the groups to stop after a signal, or when the time is up."""
        if self._stopping is not None:
            if time.monotonic() > self._stopping + LATE:
                self._halt()
            return
        if not (self._stop.should_stop() or self._stop.late):
            return
        self._stop.is_set, self._stopping = True, time.monotonic()
        meeting = self._meeting()
        if meeting is None:
            self._halt()
        else:
            self._change(ends=meeting)

    def _release(self) -> None:
        """Let groups go on if they wait for one that has no core, which they may occupy themselves."""
        late = time.monotonic() - PATIENT
        idle = [member for member in self._members if member.stream is not None and not member.node]
        if not self._is_waiting or not any(member.submitted < late for member in idle):
            return
        if any(max(member.scores, default=0) > self._answered for member in self._members):
            self._is_waiting = False
            self._change(waits=False)
            warn(
                f"The cluster has no core or memory for {idle[0].group}, so the other groups go on without"
                " it: the run may train beyond the evaluation that ends it.",
                stacklevel=4,
            )

    def _meeting(self) -> int | None:
        """Return the step of an evaluation that all groups will reach soon; `None` if there is none."""
        E, config = self._config.recipe.num_envs, self._config
        if any(member.stream is not None and member.progress is None for member in self._members):
            return None
        every = max(1, config.eval_every // E) * E
        end = math.ceil(config.steps / E) * E
        ahead = max(member.step + (member.rate if member.stream else 0.0) for member in self._members)
        step = min(end, (int(ahead) // every + 1) * every)
        waits = [(step - member.step) / member.rate for member in self._members if member.step < step]
        return step if all(math.isfinite(wait) and wait <= NEAR for wait in waits) else None

    def _halt(self) -> None:
        """Stop every group where it is; give up those that no core has begun."""
        if self._stopping is None:
            self._stopping = time.monotonic()
        self._change(stop=True)
        for member in self._members:
            if not member.node:
                member.cancel()

    def _change(self, **fields: Any) -> None:
        import ray

        ray.get(self._board.change.remote(**fields))

    def _report(self, now: bool = False) -> None:
        if now or time.monotonic() - self._shown >= SHOWS:
            self._shown = time.monotonic()
            self._show(progress_of(self._members, self._config, self._stop.elapsed, self._faults))

    def _finished(self) -> Run:
        """Merge what there is; return the run, or raise what ended it."""
        from qhat.runs.train import Interrupted

        stop, whole = self._stop, self._whole
        run = whole.close(stop.by)
        if stop.raised is not None:
            stop.raise_failure(whole.folder, self._config.env, whole.step)
        if self._failure is not None:
            if isinstance(self._failure, UsageError) or run is None:
                raise self._failure
            raise StoppedError(self._failure, whole.folder.path, self._config.env, whole.step)
        if run is None:
            raise QhatError(
                f"The run in '{whole.folder.path}' was stopped before every group had a checkpoint; there"
                " is nothing to continue from."
            )
        if stop.is_set and stop.should_stop():
            raise Interrupted(run)
        return run
