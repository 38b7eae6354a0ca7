"""A finished (or interrupted) run: its weights, and its score in fresh episodes."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from qhat.axes.actions import Actions
from qhat.axes.axis import AxisValue, spell
from qhat.engine.iteration import Program
from qhat.environments import wrappers
from qhat.environments.base import Spec
from qhat.environments.catalogue import is_from_python, require_made_by_id
from qhat.environments.observations import read_layout, read_space
from qhat.environments.options import check
from qhat.environments.user_envs import EnvLike, spec_of
from qhat.environments.wrappers import Wrapper
from qhat.evaluation.deployed_policy import Policy
from qhat.evaluation.scoring import played_in
from qhat.evaluation.statistics import Score
from qhat.recipes.parts import kinds_of, require_known
from qhat.recipes.recipe import Recipe
from qhat.runs.checkpoint import flatten, read_tree
from qhat.runs.curves import read_evaluations
from qhat.runs.folder import RunFolder, path_of
from qhat.runs.manifest import read_about
from qhat.system import compilation_cache
from qhat.system.display import card, curve
from qhat.system.errors import UsageError, blaming, require, setting


def opened(run: Any, parts: Sequence[type[AxisValue]] = ()) -> Run:
    """Return a run, opened if it is the path of its folder.

    Raises:
        UsageError: there is none, or `run` is something else, such as an `Agent`.
    """
    return run if isinstance(run, Run) else Run.open(path_of(run), tuple(parts))


AGENT = "agent"
"""Where config.json says that an `Agent` wrote the folder, so that there is no training to resume."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder and what was trained in it."""

    folder: RunFolder
    """The run folder; `folder.path` is where it is."""
    program: Program
    """What the recipe compiles to in this environment."""
    spec: Spec
    """The environment's id, observations and actions."""
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the environment's constructor."""
    wrap: tuple[Wrapper, ...] = ()
    """What stood around the environment."""

    def __repr__(self) -> str:
        """Return where the run is, and what was trained."""
        return f"Run({str(self.folder.path)!r}, {self.spec.id!r})"

    def _repr_html_(self) -> str:
        """Return the run's evaluations as a curve, its scores and what to call next, for notebooks."""
        about, evaluations = self.summary(), read_evaluations(self.folder.path)
        best = ", ".join("none" if score is None else f"{score:.4g}" for score in about["best_score"])
        rows = {"folder": self.folder.path, "steps": f"{about['step']:,}", "best of each seed": best}
        if about["stopped_by"]:
            rows["ended by"] = about["stopped_by"]
        picture = curve(evaluations.step.tolist(), evaluations.score, "environment steps")
        env = "" if not is_from_python(self.spec.id) else ", env=..."
        commands = [
            (f"qhat.evaluate(run{env})", "an unbiased score, in fresh episodes"),
            (f"qhat.play(run{env})", "a film of the policy"),
            (f"qhat.export(run{env})", "the policy for a robot, without JAX"),
        ]
        return card(f"Run in {self.spec.id}", rows, picture, commands)

    @staticmethod
    def open(path: Path | str, parts: tuple[type[AxisValue], ...] = ()) -> Run:
        """Open a run folder. Raises `UsageError` when it is missing, damaged or foreign.

        Args:
            parts: classes of the recipe's parts from outside the package.
        """
        folder = RunFolder.open(Path(path))
        config = folder.read_config()
        compilation_cache.enable()
        with blaming(f"'{folder.config}'"):
            require_known(config, parts)
            recipe, spec = Recipe.from_json(config["recipe"], parts), spec_from_json(config["spec"])
            wrap = wrappers.listed(config["wrap"])
            return Run(folder, program_of(recipe, spec, wrap), spec, check(config["env_kwargs"]), wrap)

    def weights(self, checkpoint: str | int = "best") -> Any:
        """Return the online weights of all seeds, leaves `[S, ...]`: best, last or a checkpoint's step."""
        source = self.folder.checkpoint(checkpoint)
        return read_tree(source, "weights", self._like(source), finite=[""])

    def evaluate(
        self,
        episodes: int = 100,
        checkpoint: str | int = "best",
        seed: int = 1_000_000,
        env: str | EnvLike | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Score:
        """Play fresh greedy episodes with every seed's policy, in the reference where there is one.

        Args:
            episodes: per seed.
            checkpoint: `best` (chosen by the run's own evaluations), `last`, or a checkpoint's step.
            seed: of the first episode; seed i's episodes are numbered on from seed + i·episodes.
            env: another environment with the same spaces: an id, a function that makes a Gymnasium
                environment, or an `Environment`, every copy of which plays one episode. The run's wrappers
                stand around it too.
            env_kwargs: options of the environment's constructor; default: the run's, and none for another
                `env`.
            progress: told how far it is, where that takes more than two seconds.
        """
        if env is None:
            self.require_made_by_id("it again, as qhat.evaluate(run, env=...)")
        if env_kwargs is None:
            env_kwargs = self.env_kwargs if env is None else {}
        fresh = played_in(
            self.spec.id if env is None else env,
            self.program.learner,
            self.weights(checkpoint),
            lambda spec: spec.require_fits(self.spec),
            actions=self.spec.actions,
            episodes=episodes,
            seed=seed,
            env_kwargs=env_kwargs,
            wrap=self.wrap,
            progress=progress,
        )
        return fresh.score

    def require_made_by_id(self, how: str) -> None:
        """Raise `UsageError` where the run's environment was handed over from Python.

        Args:
            how: what to do instead.
        """
        require_made_by_id(self.spec.id, how)

    def summary(self) -> dict[str, Any]:
        """Return the last checkpoint's step, each seed's best score and its step, and what ended the run.

        `halted` says which seeds met a number that is not finite; `stopped_by` is `stop_at`,
        `stop_below`, `callback`, `max_seconds` or `None`.
        """
        about = read_about(self.folder.last())
        return {name: about[name] for name in ("step", "best_score", "best_step", "halted", "stopped_by")}

    def seed_index(self, wanted: int | None = None) -> int:
        """Return the index of the `wanted` seed, from 0. Default: the best in the run's evaluations."""
        scores = [-np.inf if score is None else score for score in self.summary()["best_score"]]
        at = int(np.argmax(scores)) if wanted is None else wanted
        require(0 <= at < len(scores), f"seed_index is {at}; expected 0 to {len(scores) - 1}.")
        return at

    def policy(self, checkpoint: str | int = "best", seed_index: int | None = None) -> Policy:
        """Return one seed's greedy policy, for a control loop: `action = policy(observation)`.

        Args:
            checkpoint: weights: `best`, `last`, or a checkpoint's step.
            seed_index: from 0. Default: the seed with the best score in the run's evaluations.

        Warns:
            UserWarning: the run is from an earlier version, which did not note where its actions start.
        """
        at = self.seed_index(seed_index)
        weights = jax.tree.map(lambda leaf: jnp.asarray(leaf[at]), self.weights(checkpoint))
        return Policy(self.program.learner, weights, self._completed())

    def _completed(self) -> Spec:
        """Return the spec with the start and shape of its actions, which early runs do not have."""
        if self.spec.actions.complete:
            return self.spec
        if not is_from_python(self.spec.id):
            bins = self.spec.actions.choices
            return self.spec.completed(spec_of(self.spec.id, self.env_kwargs, self.wrap, bins))
        warnings.warn(
            f"Run '{self.folder.path}' is from an earlier version, which did not note at which number the"
            " actions start: 0 is taken for the first. Where the space has another start, resume the run"
            " once, which notes it.",
            UserWarning,
            stacklevel=3,
        )
        return self.spec

    def weights_sha256(self, checkpoint: str | int = "last") -> str:
        """Hash of the weights' values, for comparing runs."""
        digest = hashlib.sha256()
        for name, value in sorted(flatten(self.weights(checkpoint)).items()):
            digest.update(name.encode() + value.tobytes())
        return digest.hexdigest()

    def _like(self, source: Path) -> Any:
        S = len(read_about(source)["best_score"])
        one = jax.eval_shape(self.program.learner.init_parameters, jax.random.key(0))
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((S, *leaf.shape), leaf.dtype), one)


def load_best(folder: RunFolder, like: Any, recipe: Recipe) -> Any:
    """Return a run's best weights, spread over the seeds of `like`.

    Raises:
        UsageError: the run's composition is another one.
    """
    source = Run.open(folder.path, kinds_of(recipe))
    for name in ("head", "merge", "dense", "torso", "hidden", "normalise"):
        theirs, ours = getattr(source.program.recipe, name), getattr(recipe, name)
        require(
            theirs == ours,
            f"The weights of '{folder.path}' have a different network architecture: {name} {_say(theirs)};"
            f" expected {_say(ours)}.",
        )
    memories = [(each.memory.name, each.memory.units) for each in (source.program.recipe, recipe)]
    require(
        memories[0] == memories[1],
        f"The weights of '{folder.path}' have a different network architecture: memory"
        f" {spell(source.program.recipe.memory)}; expected {spell(recipe.memory)}.",
    )
    for name in ("joints", "resolution"):
        theirs, ours = getattr(source.program.recipe, name), getattr(recipe, name)
        require(
            theirs.rows == ours.rows,
            f"The weights of '{folder.path}' have a different network architecture: {name} {_say(theirs)};"
            f" expected {_say(ours)}.",
        )
    weights = source.weights("best")
    S = jax.tree.leaves(like)[0].shape[0]
    have = jax.tree.leaves(weights)[0].shape[0]
    spread = jax.tree.map(lambda leaf: jnp.asarray(leaf)[jnp.arange(S) % have], weights)
    if jax.tree.map(jnp.shape, spread) != jax.tree.map(jnp.shape, like):
        theirs, ours = (each.resolution.grows for each in (source.program.recipe, recipe))
        growing = setting("resolution", "growing")
        about = f" Expected observations and actions of the same sizes, and the same {setting('bins')}."
        if theirs and not ours:
            about = f" They know which commands are in use: expected {growing}."
        if ours and not theirs:
            about = f" They do not know which commands are in use: leave {growing} out."
        raise UsageError(f"The weights of '{folder.path}' have a different network architecture.{about}")
    return spread


def _say(part: Any) -> str:
    return spell(part) if isinstance(part, AxisValue) else str(part)


def program_of(
    recipe: Recipe, spec: Spec, wrap: Sequence[Wrapper], stops: bool = True, logged: int = 0
) -> Program:
    """Compose the program of a recipe; of `wrap` it takes the wrappers of rewards."""
    spaces = (spec.shape, spec.dtype, spec.actions, spec.masked)
    more: dict[str, Any] = {"stack": spec.stack, "rewards": wrappers.of_rewards(wrap), "stops": stops}
    return dataclasses.replace(Program.of(recipe, *spaces, **more, layout=spec.layout), logged=logged)


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """Write an environment's spec."""
    layout = {} if spec.layout is None else {"layout": spec.layout.to_json()}
    fields = dataclasses.asdict(spec)
    return {
        **{name: value for name, value in fields.items() if name not in ("layout", "mirror")},
        "shape": list(spec.shape),
        "actions": spec.actions.to_json(),
        "options": dict(spec.options),
        **layout,
    }


def spec_from_json(data: Any) -> Spec:
    """Read what `spec_to_json` wrote. Raises `UsageError` when it is damaged."""
    try:
        shape, dtype = read_space(data["shape"], data["dtype"])
        texts, reference = (data["id"], data["backend"]), data["reference"]
        masked, numbers = data.get("masked", False), (data.get("stack", 1), data.get("limit", 0))
        known = all(isinstance(text, str) for text in texts) and isinstance(reference, str | None)
        counted = all(type(number) is int and 0 <= number < 2**31 for number in numbers) and numbers[0] > 0
        if not (known and counted and isinstance(masked, bool)):
            raise TypeError
        return Spec(
            id=texts[0],
            backend=texts[1],
            shape=shape,
            dtype=dtype,
            actions=Actions.from_json(data["actions"]),
            reference=reference,
            masked=masked,
            stack=numbers[0],
            limit=numbers[1],
            options=tuple(sorted(check(data.get("options", {})).items())),
            layout=read_layout(data.get("layout"), shape, dtype),
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise UsageError("the spec cannot be read: the run is damaged.") from None


@runtime_checkable
class Scored(Protocol):
    """What can be scored: a `Run`, an `Agent`."""

    @property
    def evaluate(self) -> Callable[..., Score]:
        """Plays fresh greedy episodes."""
        ...


def evaluate(
    run: Scored | Path | str,
    env: str | EnvLike | None = None,
    *,
    episodes: int = 100,
    checkpoint: str | int | None = None,
    seed: int = 1_000_000,
    env_kwargs: Mapping[str, Any] | None = None,
    parts: Sequence[type[AxisValue]] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Score:
    """Score a run, or an agent, in fresh greedy episodes; see `Run.evaluate` and `Agent.evaluate`.

    Args:
        run: a run, its folder, or an `Agent`.
        env: environment to play. Default: the run's; an agent needs one.
        episodes: per seed.
        checkpoint: weights of a run: `best` (the default), `last`, or a checkpoint's step.
        seed: of the first episode.
        env_kwargs: options of the environment's constructor. Default: the run's; none for another `env`.
        parts: classes of the recipe's parts from outside the package.
        progress: called with how far it is, where that takes more than two seconds.
    """
    scored = Run.open(run, tuple(parts)) if isinstance(run, str | Path) else run
    options: dict[str, Any] = {} if checkpoint is None else {"checkpoint": checkpoint}
    return scored.evaluate(
        env=env, episodes=episodes, seed=seed, env_kwargs=env_kwargs, progress=progress, **options
    )
