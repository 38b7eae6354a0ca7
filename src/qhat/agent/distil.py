"""`qhat.distil`: from a policy that saw what only training has, to one on a robot's own sensors."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from qhat.agent.arguments import read_recipe
from qhat.agent.to_run import Situation, write_run
from qhat.engine import recurrent
from qhat.engine.calibration import standardised
from qhat.engine.distillation import Distillation, Pupil, Window
from qhat.engine.iteration import Program
from qhat.engine.replay.moments import Moments
from qhat.environments.base import Spec
from qhat.environments.host import HostEnvironment
from qhat.environments.make import make_any
from qhat.environments.stepped import stepped
from qhat.environments.user_envs import spec_of
from qhat.environments.wrappers import RewardScale
from qhat.recipes.recipe import Recipe
from qhat.recipes.settings import RecipeSettings
from qhat.runs.run import Run, opened
from qhat.system import devices
from qhat.system.errors import require
from qhat.system.files import write_text

LENGTH, WINDOWS, PASSES = 32, 16, 8
"""Steps of a window; windows that are kept; gradient steps after each window, on any of these."""
LEADS = 0.25
"""Share of the steps in which the teacher acts less and less: in all copies at first, in none at last."""
REPORT = "distilled.json"
"""What was learned from whom, in the run's folder."""


def distil(
    run: Run | Path | str,
    see: str,
    *,
    checkpoint: str | int = "best",
    seed_index: int | None = None,
    steps: int = 200_000,
    copies: int = 64,
    seed: int = 0,
    episodes: int = 20,
    run_dir: Path | str | None = None,
    progress: Callable[[str], None] = lambda _: None,
    over: Callable[[], bool] = lambda: False,
    **settings: Unpack[RecipeSettings],
) -> Run:
    """Teach a network that sees other groups of observations what a run's policy values.

    Args:
        run: the teacher, trained with an option `group` of its environment.
        see: groups of observations that the student sees, joined by `+`.
        checkpoint: the teacher's weights: `best`, `last`, or a checkpoint's step.
        seed_index: of the teacher; the best seed unless given.
        steps: environment steps.
        copies: of the environment, which act at the same time.
        seed: of the student's weights and of the episodes.
        episodes: of the evaluation that ends it.
        run_dir: the student's folder; new unless given.
        progress: called with how far it is.
        over: asked after every window; once it is true, the student is written as it is.
        settings: fields of the student's `Recipe`: `memory="min_gru"`, `hidden=(256, 128)`.

    Returns:
        the student's run, which is evaluated, filmed and exported as others are.

    Raises:
        UsageError: the run has no named groups, wrappers change its observations, or there is no such
            group.
    """
    run = opened(run)
    lesson = _prepared(run, see, copies, seed, steps, settings)
    teacher = jax.tree.map(
        lambda leaf: jnp.asarray(leaf[run.seed_index(seed_index)]), run.weights(checkpoint)
    )
    try:
        taught = _taught(lesson, teacher, steps, seed, progress, over)
    finally:
        lesson.environment.close()
    online = jax.tree.map(lambda leaf: np.asarray(leaf)[None], taught.parameters)
    progress("evaluating the student")
    where = None if run_dir is None else Path(run_dir)
    situation = Situation(lesson.program, online, seed, taught.steps, [])
    student = write_run(situation, run.spec.id, where, lesson.options, episodes, progress)
    report = {
        "teacher": "/".join(run.folder.path.resolve().parts[-3:]),
        "teacher_saw": run.env_kwargs["group"],
        "student_sees": see,
        "steps": taught.steps,
        "same_actions": taught.same,
        "loss": taught.loss,
    }
    write_text(student.folder.path / REPORT, json.dumps(report, indent=2) + "\n")
    return student


class _Lesson(NamedTuple):
    """What there is before the first step."""

    environment: HostEnvironment
    """It shows what both see."""
    distillation: Distillation
    program: Program
    """The student's."""
    options: dict[str, Any]
    """Of the student's environment."""


class _Taught(NamedTuple):
    """What a student has reached."""

    parameters: Any
    steps: int
    same: float
    """Share of the last windows' steps in which the student would act as the teacher does."""
    loss: float


def _prepared(run: Run, see: str, copies: int, seed: int, steps: int, settings: RecipeSettings) -> _Lesson:
    """Make the environment and the student. Raises `UsageError`."""
    require(copies >= 1, f"copies is {copies}; expected 1 or more.")
    require(steps >= 1, f"steps is {steps}; expected 1 or more.")
    run.require_made_by_id("an id")
    saw = run.env_kwargs.get("group")
    require(
        isinstance(saw, str),
        f"Run '{run.folder.path}' was trained without an option group of its environment; expected a policy"
        " that saw groups with names: --env-kwargs group=critic.",
    )
    changed = [wrapper for wrapper in run.wrap if not isinstance(wrapper, RewardScale)]
    require(
        not changed and not run.spec.masked,
        f"Run '{run.folder.path}' has wrappers or masks of actions; expected observations and actions as"
        " the environment has them.",
    )
    devices.prepare(1)
    options, bins = {**run.env_kwargs, "group": see}, run.spec.actions.choices
    spec = spec_of(run.spec.id, options, bins=bins)
    whole = dict.fromkeys((*str(saw).split("+"), *see.split("+")))
    wide = {**options, "group": "+".join(whole)}
    environment = stepped(make_any(run.spec.id, copies, (seed,), options=wide, bins=bins), seed=seed)
    learner = run.program.learner
    base = Recipe(
        hidden=learner.recipe.hidden, layer_norm=learner.recipe.layer_norm, torso=learner.recipe.torso,
        joints=learner.recipe.joints, bins=learner.recipe.bins, gamma=learner.recipe.gamma, normalise=True,
    )  # fmt: skip
    recipe = read_recipe(base, settings, steps)
    program = Program.of(recipe, spec.shape, spec.dtype, spec.actions, layout=spec.layout)
    rounds = max(1, steps // (LENGTH * copies))
    distillation = Distillation(
        learner,
        program.learner,
        _places(environment.spec, run.spec, str(saw)),
        _places(environment.spec, spec, see),
        updates=rounds * PASSES,
    )
    return _Lesson(environment, distillation, program, options)


def _places(wide: Spec, narrow: Spec, groups: str) -> tuple[int, ...]:
    """Return where the numbers of groups are in an observation of more groups."""
    for spec in (wide, narrow):
        vector = len(spec.shape) == 1 and (spec.layout is None or not spec.layout.is_packed)
        require(vector, f"'{spec.id}' shows pictures in these groups; expected numbers alone.")
    if wide.layout == narrow.layout:
        return tuple(range(wide.shape[0]))
    assert wide.layout is not None
    ends = np.cumsum([entry.size for entry in wide.layout.entries])
    spans = {
        entry.path: range(end - entry.size, end)
        for entry, end in zip(wide.layout.entries, ends.tolist(), strict=True)
    }
    if "+" in groups:
        assert narrow.layout is not None
        paths: Sequence[Any] = [entry.path for entry in narrow.layout.entries]
    else:
        paths = [path for path in spans if path[0] == groups]
    return tuple(place for path in paths for place in spans[path])


def _taught(
    lesson: _Lesson,
    teacher: Any,
    steps: int,
    seed: int,
    progress: Callable[[str], None],
    over: Callable[[], bool],
) -> _Taught:
    """Let both act, window after window, and the student learn."""
    environment, distillation = lesson.environment, lesson.distillation
    E, rng = environment.num_envs, np.random.default_rng(seed)
    pupil, walk = distillation.init(jax.random.key(seed)), _Walk(lesson, teacher)
    kept: list[Window] = []
    moments = Moments.of(lesson.program.shape, lesson.program.layout)
    rounds, began = max(1, steps // (LENGTH * E)), time.perf_counter()
    same = loss = 0.0
    done, now = 0, jnp.float32(0)
    for index in range(rounds):
        share = max(0.0, 1 - index / max(1, LEADS * rounds))
        window, alike = walk.on(pupil.parameters, rng.uniform(size=E) < share)
        moments = moments.see(window.observation.reshape(LENGTH * E, -1), jnp.ones(LENGTH * E, bool))
        pupil = Pupil(standardised(pupil.parameters, moments), pupil.optimiser)
        kept = [*kept[1 - WINDOWS :], window]
        for at in rng.integers(len(kept), size=PASSES):
            pupil, now = distillation.learn(pupil, kept[at])
        loss, same = float(now), alike if index == 0 else 0.9 * same + 0.1 * alike
        done = (index + 1) * LENGTH * E
        left = (time.perf_counter() - began) / (index + 1) * (rounds - index - 1)
        progress(
            f"step {done:,} of {rounds * LENGTH * E:,} · {same:.1%} of actions as the teacher's · loss"
            f" {loss:.3g} · {int(left) // 60:02d}:{int(left) % 60:02d} left"
        )
        if over():
            break
    return _Taught(pupil.parameters, done, same, loss)


class _Walk:
    """The copies of the environment, and both memories."""

    def __init__(self, lesson: _Lesson, teacher: Any):
        self._environment, self._both, self._teacher = lesson.environment, lesson.distillation, teacher
        E = lesson.environment.num_envs
        self._wide = lesson.environment.start()[0]
        self._first = np.ones(E, bool)
        self._recalls = tuple(recurrent.fresh(one, E) for one in (self._both.teacher, self._both.student))

    def on(self, student: Any, leads: np.ndarray) -> tuple[Window, float]:
        """Take the steps of a window; return it, and the share of actions that are the teacher's."""
        recall = self._recalls[1]
        states = jnp.zeros((len(leads), 0)) if recall is None else recall.after
        rows: list[tuple[np.ndarray, Any, np.ndarray]] = []
        alike = []
        for _ in range(LENGTH):
            action, same, values, recalls = self._both.act(
                self._teacher, student, jnp.asarray(self._wide), self._recalls, jnp.asarray(leads)
            )
            rows.append((self._both.shown(self._wide, self._both.student_sees), values, self._first))
            alike.append(same)
            self._environment.send(np.asarray(action)[None])
            now = self._environment.receive()
            self._wide = now.observation[0]
            self._first = np.asarray(recurrent.ended(now))[0]
            self._recalls = tuple(
                None if each is None else self._begun(learner, each)
                for learner, each in zip((self._both.teacher, self._both.student), recalls, strict=True)
            )
        observation, target, first = (jnp.stack(column) for column in zip(*rows, strict=True))
        return Window(observation, target, first, states), float(np.mean(alike))

    def _begun(self, learner: Any, recall: recurrent.Recall) -> recurrent.Recall:
        """Return states before the next observations: fresh ones where it is an episode's first."""
        after = learner.recipe.memory.forget(recall.after, jnp.asarray(self._first))
        return recurrent.Recall.of(recall.before, after)
