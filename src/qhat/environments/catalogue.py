"""What environments there are, as data: readable before JAX or an environment library is imported."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from qhat.environments import options as constructor
from qhat.system.errors import UsageError, near_miss
from qhat.system.machine import EXTRAS, install_extra, installed

PYTHON = "own:"
"""What the ids of environments that were handed over from Python begin with: no id makes those again."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One environment of one backend."""

    name: str
    """What the backend calls it."""
    observation: str
    """Shape and dtype of one observation, for people."""
    actions: str
    """The same of an action: `4 discrete`, `(6,) float64`."""
    reference: str | None
    """Gymnasium id of the reference implementation that scores are measured on."""
    backend: str = "gymnax"
    limit: int = 0
    """Steps after which an episode is cut; 0 where that is not known."""
    stack: int = 1
    """Frames that an observation of Gymnasium's is made of."""
    batch: bool = False
    """Whether Gymnasium makes nothing but whole vector environments of it."""

    @property
    def id(self) -> str:
        """The id as it can be typed: with the backend where the bare name means another one."""
        bare = self.bare and _meant(self.name) in (self.backend, None)
        return self.name if bare else f"{self.backend}:{self.name}"

    @property
    def bare(self) -> bool:
        """Whether its name is an id without a backend before it."""
        return not backend_of(self.backend).prefixed

    @property
    def lacks(self) -> str | None:
        """The extra of qhat's that has to be installed first, if one has."""
        needs = backend_of(self.backend).needs
        return None if needs is None or installed(needs) else EXTRAS[needs]


@dataclasses.dataclass(frozen=True)
class Backend:
    """Where environments come from."""

    name: str
    entries: Callable[[], tuple[Entry, ...]]
    """What it has, as far as that is known before it is imported."""
    module: str
    """Has `make(entry, args: MakeArgs)`, which returns an `Environment` or a `HostEnvironment`; imported
    when one is made."""
    needs: str | None = None
    """Module that one of qhat's extras installs."""
    prefixed: bool = False
    """Whether ids always begin with its name."""
    simulates: bool = False
    """Whether packages that it does not know register tasks of it."""
    in_jax: bool = False
    """Whether each of its environments is a `JaxEnvironment`."""

    def make(self, entry: Entry, args: Any) -> Any:
        """Make environments.

        Args:
            args: `MakeArgs`.
        """
        return importlib.import_module(self.module).make(entry, args)


MINATAR = "-MinAtar"
"""What the names of MinAtar's games end with."""


def _minatar(name: str, channels: int, choices: int) -> Entry:
    shape = f"(10, 10, {channels}) bool"
    return Entry(name + MINATAR, shape, f"{choices} discrete", f"MinAtar/{name}-v1")


GYMNAX: tuple[Entry, ...] = (
    Entry("CartPole-v1", "(4,) float32", "2 discrete", "CartPole-v1"),
    Entry("Acrobot-v1", "(6,) float32", "3 discrete", "Acrobot-v1"),
    Entry("MountainCar-v0", "(2,) float32", "3 discrete", "MountainCar-v0"),
    Entry("Catch-bsuite", "(10, 5) float32", "3 discrete", None),
    _minatar("Asterix", 4, 5),
    _minatar("Breakout", 4, 3),
    _minatar("Freeway", 7, 3),
    _minatar("Seaquest", 10, 6),
    _minatar("SpaceInvaders", 6, 4),
    Entry("Pendulum-v1", "(3,) float32", "(1,) float32", "Pendulum-v1"),
    Entry("MountainCarContinuous-v0", "(2,) float32", "(1,) float32", "MountainCarContinuous-v0"),
)


OURS = (Entry("TurtleBot3-v0", "(26,) float32", "5 discrete", None, "qhat", limit=800),)


def marked(env_id: str) -> str:
    """Return the id of an environment that was handed over from Python."""
    return env_id if env_id.startswith(PYTHON) else PYTHON + env_id


def is_from_python(env_id: str, backend: Any = None) -> bool:
    """Whether an environment was handed over from Python.

    Args:
        backend: what its spec calls it. Older runs have no mark, but a backend that is none of ours.
    """
    return env_id.startswith(PYTHON) or (isinstance(backend, str) and backend not in backend_names())


def require_made_by_id(env_id: str, how: str) -> None:
    """Raise `UsageError` for an environment that was handed over from Python: whatever else has its id, no
    other implementation plays in its place.

    Args:
        how: what to do instead.
    """
    if is_from_python(env_id):
        raise UsageError(
            f"Environment '{env_id}' was handed over from Python, and no id makes it again; expected {how}."
        )


def find(env_id: str, options: Mapping[str, Any] | None = None) -> Entry:
    """Return the entry of an id that can be trained on: `LunarLander-v3`, `envpool:CartPole-v1`.

    Args:
        options: of its constructor. Gymnasium's implementation stays the reference only where it takes
            them all: another task would be scored otherwise.

    Raises:
        UsageError: the id is unknown (with the near miss), or its library is not installed.
    """
    options = constructor.check(options or {})
    entry = _named(env_id, options)
    if entry.lacks:
        raise UsageError(
            f"Environment '{env_id}' needs {entry.backend}, which is not installed; type:"
            f" {install_extra(entry.lacks)}"
        )
    if options and entry.reference and entry.backend != "gym":
        known = constructor.reference_knows(entry.reference, options)
        entry = entry if known else dataclasses.replace(entry, reference=None)
    return entry


def _named(env_id: str, options: Mapping[str, Any]) -> Entry:
    first, colon, rest = env_id.partition(":")
    names = backend_names()
    prefix, name = (first, rest) if colon and first in names else ("", env_id)
    require_made_by_id(env_id, "it again, as qhat.train(env, ...) or qhat.evaluate(run, env=...)")
    if colon and not prefix and near_miss(first, names) and not _is_module(first):
        raise UsageError(
            f"Environment '{env_id}' names backend '{first}'; expected one of {', '.join(names)}."
            + near_miss(first, names)
        )
    asked = [entry for entry in entries() if prefix == entry.backend or (not prefix and entry.bare)]
    if found := [entry for entry in asked if entry.name == name]:
        return found[0]
    trainable = [entry.name for entry in asked]
    if versions := [other for other in entries() if other.name.rpartition("-v")[0] == name != ""]:
        named = next((f" Did you mean '{other.name}'?" for other in versions if other in asked), "")
        meant = _by_first_word(name, trainable or [other.name for other in versions])
        raise UsageError(f"Environment '{env_id}' has no version.{(prefix and named) or meant}")
    if prefix and backend_of(prefix).simulates:
        # Packages register their tasks when the simulator starts: it says which there are.
        return Entry(name, "", "", None, prefix)
    if prefix == "jax":
        from qhat.environments.jax.by_name import entry_of

        return entry_of(name, options)
    if prefix in ("", "gym") and (entry := _gymnasium(name, options)):
        return entry
    if prefix == "gym":
        import gymnasium

        trainable = sorted(gymnasium.registry)
    raise UsageError(
        f"Environment '{env_id}' is not known; `qhat envs` lists what is."
        + (_by_first_word(name, trainable) or near_miss(name, trainable))
    )


def _is_module(name: str) -> bool:
    """Whether a word before a colon is a package that registers environments: `popgym`, not `gymn`."""
    try:
        return installed(name.partition(".")[0])
    except ValueError:
        return False


def _meant(name: str) -> str | None:
    """The backend that a bare name means, if not Gymnasium."""
    return _first_backends(BACKENDS).get(name)


@functools.cache
def _first_backends(backends: tuple[Backend, ...]) -> dict[str, str]:
    bare = [backend for backend in reversed(backends) if not backend.prefixed]
    return {entry.name: entry.backend for backend in bare for entry in backend.entries()}


def _by_first_word(name: str, known: list[str]) -> str:
    """`Catch` and `breakout` mean `Catch-bsuite` and `Breakout-MinAtar`."""
    first = name.lower().split("-")[0]
    hits = [other for other in known if other.lower().split("-")[0] == first]
    return f" Did you mean '{hits[0]}'?" if hits else ""


def _gymnasium(name: str, options: Mapping[str, Any]) -> Entry | None:
    """What Gymnasium says of an id, which may be `module:Env-v0`; `None` where it knows none.

    Raises:
        UsageError: it cannot be made, with what Gymnasium said.
    """
    import gymnasium

    from qhat.environments import limits
    from qhat.environments.envpool import atari
    from qhat.environments.gymnasium import registry
    from qhat.environments.spaces import describe

    try:
        made = atari.make(name, **options)
    except UsageError:
        raise
    except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound):
        if refused := registry.not_registered(name):
            raise refused from None
        return None
    except gymnasium.error.VersionNotFound as error:
        raise UsageError(f"Environment '{name}' is not known in this version: {error}") from None
    except Exception as error:
        if not registry.is_batch(name):
            raise registry.refusal(name, error, options) from None
        batch = registry.make_batch(name, 1, options)
        limit = (batch.spec.max_episode_steps if batch.spec else None) or 0
        spaces = describe(batch.single_observation_space), describe(batch.single_action_space)
        batch.close()
        return Entry(name, *spaces, reference=None, backend="gym", limit=limit, batch=True)
    limit, spaces = (
        limits.declared_by(made),
        (describe(made.observation_space), describe(made.action_space)),
    )
    stack = atari.stack_of(made)
    made.close()
    return Entry(name, *spaces, reference=name, backend="gym", limit=limit, stack=stack)


@functools.cache
def _envpool() -> tuple[Entry, ...]:
    """EnvPool's, from a table that `tools/envpool_catalogue.py` wrote."""
    table = _table("qhat.environments.envpool", "envpool.json")
    return tuple(
        Entry(name, observation, actions, name if name in GYMNASIUM else None, "envpool", limit)
        for name, (observation, actions, limit) in table.items()
    )


@functools.cache
def _in_jax(backend: str) -> tuple[Entry, ...]:
    """Those of a library in JAX, from a table that `tools/jax_catalogue.py` wrote."""
    table = _table("qhat.environments.jax.libraries", "tasks.json")[backend]
    return tuple(Entry(name, row[0], row[1], None, backend, row[2]) for name, row in table.items())


@functools.cache
def _mjlab() -> tuple[Entry, ...]:
    """Those of mjlab, from a table that `tools/mjlab_catalogue.py` wrote."""
    table = _table("qhat.environments.isaaclab", "mjlab.json")
    return tuple(Entry(name, row[0], row[1], None, "mjlab", row[2]) for name, row in table.items())


def _table(package: str, name: str) -> dict[str, Any]:
    return json.loads((resources.files(package) / name).read_text("utf-8"))


def _library(name: str, module: str) -> Backend:
    """A library of environments that are a `JaxEnvironment` each."""
    make = "qhat.environments.jax.libraries.make"
    return Backend(name, functools.partial(_in_jax, name), make, needs=module, prefixed=True, in_jax=True)


def _simulator(name: str, entries: Callable[[], tuple[Entry, ...]], module: str) -> Backend:
    return Backend(name, entries, module, needs=name, prefixed=True, simulates=True)


GYMNASIUM = (
    "Acrobot-v1", "Blackjack-v1", "CartPole-v0", "CartPole-v1", "CliffWalking-v1", "FrozenLake-v1",
    "LunarLander-v3", "MountainCar-v0",
)  # fmt: skip
"""Those of EnvPool's ids that Gymnasium has too, where scores are measured."""

BACKENDS: tuple[Backend, ...] = (
    Backend("qhat", lambda: OURS, "qhat.environments.turtlebot3.make"),
    Backend("gymnax", lambda: GYMNAX, "qhat.environments.jax.make"),
    Backend("envpool", _envpool, "qhat.environments.envpool.make", needs="envpool"),
    _library("playground", "mujoco_playground"),
    *(_library(name, name) for name in ("brax", "jumanji", "navix", "craftax", "pgx")),
    _simulator("mjlab", _mjlab, "qhat.environments.isaaclab.mjlab"),
    _simulator("isaaclab", lambda: (), "qhat.environments.isaaclab.isaac"),
    Backend("jax", lambda: (), "qhat.environments.jax.by_name", prefixed=True, in_jax=True),
    Backend("gym", lambda: (), "qhat.environments.gymnasium.make"),
)
"""The fastest first: a bare id means the first that has it. Gymnasium's registry is asked last."""


def backend_names() -> tuple[str, ...]:
    """Return the names that an id can begin with, before a colon."""
    return tuple(backend.name for backend in BACKENDS)


def backend_of(name: str) -> Backend:
    """Return the backend of that name."""
    return next(backend for backend in BACKENDS if backend.name == name)


def envs(pattern: str = "") -> list[Entry]:
    """Return the environments whose id contains `pattern`, whatever its case; all without one.

    Those of Gymnasium's registry are not listed; `qhat.train` takes their ids too.
    """
    return [entry for entry in entries() if pattern.lower() in entry.id.lower()]


def entries() -> tuple[Entry, ...]:
    """Return every environment that is known without asking Gymnasium's registry."""
    return tuple(entry for backend in BACKENDS for entry in backend.entries())
