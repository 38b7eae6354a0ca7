"""Where a run's environments come from: an id, or what a caller hands over in its place."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from qhat.axes.actions import BINS
from qhat.environments.base import Environment, Spec
from qhat.environments.catalogue import find, marked
from qhat.environments.contract import require_contract
from qhat.environments.extras import load
from qhat.environments.gymnasium import api as gymnasium_api
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.gymnasium.make import of_vector
from qhat.environments.gymnasium.on_node import BuildOnNode, by_function, by_id, require_no_arguments
from qhat.environments.host import HostEnvironment
from qhat.environments.jax.batch import JaxBatch
from qhat.environments.jax.single import JaxEnvironment
from qhat.environments.make import make_with
from qhat.environments.make_args import MakeArgs
from qhat.environments.pictured import pictured
from qhat.environments.reference import wrapped_up
from qhat.environments.wrapped import wrapped
from qhat.environments.wrappers import Wrapper, around, require_unwrapped
from qhat.system.errors import UsageError, require, setting

EnvLike = (
    JaxEnvironment | Environment | HostEnvironment | VectorEnv | gymnasium.Env | Callable[[], gymnasium.Env]
)
"""One that compiles, single or a batch, one of the host loop's, or Gymnasium's: a vector, a single one, a
function that makes one."""


class Source(abc.ABC):
    """Where a run's environments come from."""

    closes: bool = True
    """Whether the run closes what it made of it."""
    by_id: bool = False
    """Whether an id makes it again."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What the run calls it: an id, or `own:` and an id or the name of a class."""

    @abc.abstractmethod
    def make(self, args: MakeArgs) -> Environment | HostEnvironment:
        """Make what the loops take.

        Raises:
            UsageError: it has another number of copies than the run, or cannot be wrapped.
        """

    def build_on_node(self) -> BuildOnNode:
        """Return what makes it in other processes, without JAX. Raises `UsageError` if nothing does."""
        raise UsageError(
            f"'{self.name}' cannot be made on a node: {setting('actors')} expects a gym: id, or a function"
            " that makes an environment of Gymnasium's."
        )

    def judge(self, wrap: Sequence[Wrapper]) -> Environment | Callable[[], gymnasium.Env] | None:
        """Return what plays the scores: others of the same kind. `None` where `make` makes them, or an id.

        Raises:
            UsageError: no others can be made.
        """
        raise UsageError(
            f"'{self.name}' plays the training alone; expected judge=, a function that makes a single"
            " environment for the run's evaluations."
        )

    def in_python(self) -> bool:
        """Return whether Python steps it, and may run anything in a step."""
        return True

    def has_pictures(self) -> bool:
        """Whether observations have pictures of 36 pixels or more a side.

        True where that is known only of one that is made.
        """
        return True

    def look(self) -> int | None:
        """Check the contract, before anything is made of it.

        Returns:
            the time limit in steps, 0 for none; `None` where only what plays the scores says it.
        """
        return None


@dataclasses.dataclass(frozen=True)
class ById(Source):
    """An id that `qhat envs` lists, or one of Gymnasium's registry."""

    env_id: str
    options: Mapping[str, Any]
    by_id = True

    @property
    def name(self) -> str:
        return self.env_id

    def in_python(self) -> bool:
        return find(self.env_id, self.options).backend == "gym"

    def has_pictures(self) -> bool:
        entry = find(self.env_id, self.options)
        if entry.backend == "envpool":
            arrays = load("envpool", self.env_id).make_spec(entry.name).state_array_spec
            return any(pictured(array) for name, array in arrays.items() if name.startswith("obs"))
        # Of those in JAX all are small; one of the caller's may not be, and has `threads`.
        return entry.backend == "gym"

    def build_on_node(self) -> BuildOnNode:
        entry = find(self.env_id, self.options)
        if entry.backend == "gym":
            return functools.partial(by_id, self.env_id)
        advice = f" Its reference is: gym:{entry.reference}." if entry.reference else ""
        raise UsageError(
            f"'{self.env_id}' ({entry.backend}) is compiled into the learner, and needs no"
            f" {setting('actors')}: leave them out, or name a gym: environment.{advice}"
        )

    def make(self, args: MakeArgs) -> Environment | HostEnvironment:
        return make_with(self.env_id, args)

    def judge(self, wrap: Sequence[Wrapper]) -> None:
        return None

    def look(self) -> int | None:
        entry = find(self.env_id, self.options)
        return entry.limit if entry.backend == "gym" and not entry.batch else None


@dataclasses.dataclass(frozen=True)
class Given(Source):
    """An environment that is made already, and that its caller closes."""

    env: Any
    closes = False

    @property
    def name(self) -> str:
        spec = getattr(self.env, "spec", None)
        known = getattr(spec, "id", None)
        return marked(known or type(getattr(self.env, "unwrapped", self.env)).__name__)

    def has_pictures(self) -> bool:
        return pictured(self.env.spec)


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
