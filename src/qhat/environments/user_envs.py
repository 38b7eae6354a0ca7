"""What a caller hands over in the place of an id, as a source of a run's environments."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from qhat.axes.actions import BINS
from qhat.environments.base import Environment, Spec
from qhat.environments.catalogue import marked
from qhat.environments.contract import require_contract
from qhat.environments.gymnasium import api as gymnasium_api
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.gymnasium.make import of_vector
from qhat.environments.gymnasium.on_node import BuildOnNode, by_function, require_no_arguments
from qhat.environments.host import HostEnvironment
from qhat.environments.isaaclab.robots import RobotEnvironment, is_robots
from qhat.environments.isaaclab.shared import Simulation
from qhat.environments.jax.batch import JaxBatch
from qhat.environments.jax.single import JaxEnvironment
from qhat.environments.make_args import MakeArgs
from qhat.environments.pictured import pictured
from qhat.environments.reference import wrapped_up
from qhat.environments.source import ById, Given, Source
from qhat.environments.wrapped import wrapped
from qhat.environments.wrappers import Wrapper, around, require_unwrapped
from qhat.system.errors import UsageError, require, setting

EnvLike = (
    JaxEnvironment | Environment | HostEnvironment | VectorEnv | gymnasium.Env | Callable[[], gymnasium.Env]
)
"""One that compiles, single or a batch, one of the host loop's, or Gymnasium's: a vector, a single one, a
function that makes one."""


@dataclasses.dataclass(frozen=True)
class FromCompiled(Given):
    """An environment that compiles."""

    env: Environment

    def in_python(self) -> bool:
        return False

    def make(self, args: MakeArgs) -> Environment:
        return wrapped(self.env, args.wrap)

    def judge(self, wrap: Sequence[Wrapper]) -> Environment:
        require(
            self.env.snapshots,
            f"'{self.name}' lives outside the program: an evaluation would reset it in the middle of the"
            " training's episodes. Expected judge=, another one.",
        )
        return wrapped(self.env, wrap)

    def look(self) -> int:
        return require_contract(self.env)


@dataclasses.dataclass(frozen=True)
class FromJax(Given):
    """A single environment in JAX, of which any number of copies can be made."""

    env: JaxEnvironment

    def in_python(self) -> bool:
        return False

    def has_pictures(self) -> bool:
        return False

    def make(self, args: MakeArgs) -> Environment:
        return wrapped(JaxBatch(self.env, args.num_envs, bins=args.bins, log=args.log), args.wrap)

    def judge(self, wrap: Sequence[Wrapper]) -> None:
        return None

    def look(self) -> int:
        batch = JaxBatch(self.env, 1)
        batch.require_finite()
        return batch.spec.limit


@dataclasses.dataclass(frozen=True)
class FromHosted(Given):
    """An environment of the host loop's."""

    env: HostEnvironment

    def make(self, args: MakeArgs) -> HostEnvironment:
        require_unwrapped(self.name, args.wrap)
        return self.env


@dataclasses.dataclass(frozen=True)
class FromRobots(Given):
    """A simulation with Isaac Lab's API; evaluations play in it too, between two steps of the training."""

    env: Any

    @functools.cached_property
    def _simulation(self) -> Simulation:
        return Simulation(self.env)

    def has_pictures(self) -> bool:
        return False

    def require_copies(self, count: int) -> None:
        robots = int(self._simulation.env.num_envs)
        require(
            count == robots,
            f"'{self.name}' has {robots:,} robots, and the run {count:,} (num_envs for each seed); expected"
            f" as many: {setting('num_envs', robots)} with one seed.",
        )

    def make(self, args: MakeArgs) -> HostEnvironment:
        require_unwrapped(self.name, args.wrap)
        part = self._simulation.part(args.num_envs * len(args.seeds), self.name)
        return RobotEnvironment(part, len(args.seeds), id=self.name, bins=args.bins, log=args.log)

    def judge(self, wrap: Sequence[Wrapper]) -> None:
        return None


@dataclasses.dataclass(frozen=True)
class FromVector(Given):
    """A vector environment of Gymnasium's."""

    env: VectorEnv

    def has_pictures(self) -> bool:
        return pictured(getattr(self.env, "single_observation_space", None))

    def make(self, args: MakeArgs) -> HostEnvironment:
        require_unwrapped(self.name, args.wrap)
        return of_vector(self.name, self.env, args)


@dataclasses.dataclass(frozen=True)
class FromSingle(Given):
    """One environment of Gymnasium's, which is closed with the run."""

    env: gymnasium.Env
    closes = True

    def has_pictures(self) -> bool:
        return pictured(getattr(self.env, "observation_space", None))

    def make(self, args: MakeArgs) -> HostEnvironment:
        require(
            args.num_envs * len(args.seeds) == 1,
            f"One environment was given for {len(args.seeds)} seed(s) with num_envs={args.num_envs};"
            " expected a function that makes one.",
        )
        more: dict[str, Any] = {"seconds": args.seconds, "bins": args.bins, "log": args.log}
        build = functools.partial(around, self.env, args.wrap)
        return GymnasiumEnvironment.of(self.name, build, 1, args.seeds, args.since, **more)

    def judge(self, wrap: Sequence[Wrapper]) -> Callable[[], gymnasium.Env]:
        again = functools.partial(_made_again, self.name, self.env.spec)
        return functools.partial(wrapped_up, again, tuple(wrap))


def _made_again(name: str, spec: Any) -> gymnasium.Env:
    """Make another environment by a spec; a wrapper that does not record its arguments has none."""
    try:
        if spec is not None:
            return gymnasium.make(spec)
        why = ""
    except ValueError as error:
        why = f" ({str(error).rstrip('.')})"
    raise UsageError(
        f"Environment '{name}' cannot be made again for the run's evaluations{why}; expected a function"
        " that makes one, or judge=."
    )


@dataclasses.dataclass(frozen=True)
class FromMaker(Source):
    """A function that makes an environment of Gymnasium's."""

    build: Callable[[], gymnasium.Env]

    @property
    def name(self) -> str:
        return self._made_name

    @functools.cached_property
    def _made_name(self) -> str:
        called = getattr(self.build, "__name__", "env")
        require_no_arguments(self.build, called)
        made: Any = self.build()
        gymnasium_api.require_environment(made, called)
        name = source_of(made).name
        made.close()
        return name

    def build_on_node(self) -> BuildOnNode:
        return functools.partial(by_function, self.name, self.build)

    def make(self, args: MakeArgs) -> HostEnvironment:
        return by_function(self.name, self.build, args)

    def judge(self, wrap: Sequence[Wrapper]) -> Callable[[], gymnasium.Env]:
        return functools.partial(wrapped_up, self.build, tuple(wrap))


SOURCES: tuple[tuple[type, Callable[[Any], Source]], ...] = (
    (JaxEnvironment, FromJax),
    (Environment, FromCompiled),
    (HostEnvironment, FromHosted),
    (VectorEnv, FromVector),
    (gymnasium.Env, FromSingle),
)
"""What can be handed over, and what it is then; anything else that can be called is a `FromMaker`."""


def source_of(env: str | EnvLike, options: Mapping[str, Any] | None = None) -> Source:
    """Return where environments come from. Raises `UsageError` for what is nothing of the kind.

    Args:
        options: of the constructor that an id stands for.
    """
    if isinstance(env, str):
        return ById(env, options or {})
    if isinstance(env, type) and issubclass(env, JaxEnvironment):
        raise UsageError(f"env is the class {env.__name__}; expected an environment: {env.__name__}().")
    if is_robots(env):
        return FromRobots(env)
    for kind, source in SOURCES:
        if isinstance(env, kind):
            return source(env)
    if not callable(env):
        raise UsageError(
            f"env is {env!r}; expected an id, an Environment, a Gymnasium environment or vector"
            " environment, or a function that makes one."
        )
    return FromMaker(env)


def from_python(spec: Spec) -> Spec:
    """Mark a spec: no id makes its environment, and nothing else scores it."""
    return dataclasses.replace(spec, id=marked(spec.id), reference=None)


def spec_of(
    env: str | EnvLike,
    options: Mapping[str, Any] | None = None,
    wrap: Sequence[Wrapper] = (),
    bins: Sequence[int] = BINS,
) -> Spec:
    """Return the spec of an environment. Raises `UsageError` for one that there is not."""
    source = source_of(env, options)
    made = source.make(MakeArgs(options=options or {}, wrap=wrap, bins=bins))
    if source.closes:
        made.close()
    return made.spec if source.by_id else from_python(made.spec)
