"""What `qhat tune` prints while it searches and at its end."""

from __future__ import annotations

import contextlib
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from qhat.axes.axis import to_json
from qhat.cli.stopping import StopOnSignal
from qhat.cluster.connection import connected
from qhat.evaluation.statistics.text import score_text
from qhat.recipes.config import TrainConfig
from qhat.recipes.parts import PARTS, flags, kinds_of, names_of
from qhat.runs.lock import sole
from qhat.runs.progress import Progress
from qhat.runs.train import Interrupted
from qhat.studies.tuning import final
from qhat.studies.tuning.parallel import Parallel
from qhat.studies.tuning.search import Search, best_of
from qhat.studies.tuning.space import Dimension
from qhat.studies.tuning.study import COMPLETE, STATES, Study, Trial
from qhat.system import devices
from qhat.system.errors import QhatError

EVERY = 30.0
"""Seconds between two progress lines."""


class Studying:
    """One call of `qhat tune`."""

    def __init__(self, base: TrainConfig, space: Sequence[Dimension], folder: Path, command: str):
        self.base, self.space, self.command = base, space, command
        self.study = Study(folder)
        self.outside = names_of(base.recipe)
        self.console = Console(stderr=True, highlight=False)
        self.exit_code = 0

    def run(
        self, trials: int, timeout: float | None, top: int, seeds: range, episodes: int
    ) -> dict[str, Any]:
        """Search, compare, write; return what `--json` prints.

        Raises:
            QhatError: no trial finished.
        """
        base = self.base
        self.study.begin(
            {
                "env": base.env,
                "env_kwargs": dict(base.env_kwargs),
                "wrap": [to_json(part) for part in base.wrap],
                "recipe": base.recipe.to_json(),
                **({PARTS: self.outside} if self.outside else {}),
                "steps": base.steps,
                "seeds": base.seeds,
                "seed": base.seed,
                "eval_every": base.eval_every,
                "eval_episodes": base.eval_episodes,
                "space": {dimension.name: dimension.describe() for dimension in self.space},
            },
            kinds_of(base.recipe),
        )
        # Before JAX has threads, which forks of Ray's would not have.
        with sole(self.study.path), connected(base.cluster) if base.cluster else contextlib.nullcontext():
            devices.prepare(devices.devices_for(max(base.seeds, len(seeds))))
            stop = StopOnSignal()
            try:
                return self._run(trials, timeout, top, seeds, episodes, stop)
            finally:
                self.exit_code = stop.exit_code

    def _run(
        self, trials: int, timeout: float | None, top: int, seeds: range, episodes: int, stop: StopOnSignal
    ) -> dict[str, Any]:
        search = Search(self.study, self.space, self.base)
        self._say(
            f"{self.base.env}: {len(self.space)} dimensions, {trials} trials of {self.base.steps:,} steps ×"
            f" {self.base.seeds} seeds, {len(search.trials)} of them done"
        )
        began = time.monotonic()

        def is_late() -> bool:
            return timeout is not None and time.monotonic() - began >= timeout

        def say(trial: Trial) -> None:
            self._say(_line(len(search.trials), trial, search.trials))

        if self.base.cluster is not None:
            Parallel(search).run(trials, stop, is_late, say)
        while len(search.trials) < trials and not stop() and not is_late():
            trial = search.run_one(stop, self._reporter())
            if trial is not None:
                say(trial)
        if len(search.trials) < trials and is_late():
            self._say(f"the time limit of {timeout:g} seconds is reached: no more trials")
        outcome: dict[str, Any] = {
            "study": str(self.study.path),
            "env": self.base.env,
            "trials": {state: sum(trial.state == state for trial in search.trials) for state in STATES},
            "interrupted": stop(),
            "preset": None,
        }
        if stop():
            return outcome
        chosen = best_of(search.trials, top)
        if not chosen:
            reasons = {trial.why for trial in search.trials if trial.why}
            raise QhatError(f"No trial finished. {' '.join(sorted(reasons))}".strip())
        outcome |= self._compare(search, chosen, seeds, episodes, stop)
        return outcome

    def _compare(
        self, search: Search, chosen: list[Trial], seeds: range, episodes: int, stop: Callable[[], bool]
    ) -> dict[str, Any]:
        self._say(f"comparing the best {len(chosen)} with the defaults, on seeds {seeds[0]} to {seeds[-1]}")
        judged = []
        for candidate in final.candidates(chosen, search.trials, self.space, self.base):
            self._say(f"{candidate.name}:")
            try:
                how = (seeds, episodes, self.command, self._reporter(), stop)
                judged.append(final.judge(self.study, self.base, candidate, *how))
            except Interrupted:
                return {"interrupted": True}
            score = judged[-1].score
            low, high = score.interval or (math.nan, math.nan)
            interval = (
                f"[{score_text(low)}, {score_text(high)}]" if score.interval else "(one seed: no interval)"
            )
            self._say(f"  IQM {score_text(score.iqm)} {interval}")
        said = {
            "command": self.command,
            "tuning_seeds": list(range(self.base.seed, self.base.seed + self.base.seeds)),
            "final_seeds": list(seeds),
        }
        file = final.write(self.study, self.base, search.trials, judged, said)
        self._say(file.found["verdict"])
        words = ["qhat", "train", self.base.env, "--preset", str(self.study.preset), *flags(self.outside)]
        self._say(f"\nnext:\n  {shlex.join(words)}")
        names = ("chosen", "params", "scores", "verdict")
        return {"preset": str(self.study.preset), **{name: file.found[name] for name in names}}

    def _reporter(self) -> Callable[[Progress], None]:
        shown = time.monotonic()

        def report(now: Progress) -> None:
            nonlocal shown
            if time.monotonic() - shown >= EVERY:
                shown = time.monotonic()
                greedy = score_text(now.evaluation)
                self._say(f"  step {now.step:,} of {now.steps:,} · greedy {greedy}")

        return report

    def _say(self, words: str) -> None:
        self.console.print(words, soft_wrap=True, markup=False)
        sys.stderr.flush()


def _line(number: int, trial: Trial, every: Sequence[Trial]) -> str:
    value = trial.why if trial.value is None else score_text(trial.value)
    top = max((each.value or -math.inf for each in every if each.state == COMPLETE), default=math.nan)
    params = ", ".join(
        f"{name} {f'{setting:.3g}' if isinstance(setting, float) else str(setting).lower()}"
        for name, setting in trial.params.items()
    )
    found = f"{trial.state} {value} (best {score_text(top)})"
    return f"trial {number}: {found} in {trial.seconds:.0f} s · {params}"
