"""Settings that were searched for one task each. `docs/presets.md` tells how, and what they reach."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qhat.axes.axis import AxisValue, to_json
from qhat.axes.bonus import Munchausen
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.heads import Expected, Quantile
from qhat.axes.optimiser import Adam, AdamW
from qhat.axes.policy import Double, Softmax
from qhat.axes.relabel import Hindsight
from qhat.axes.sampler import Prioritised, Uniform
from qhat.axes.target import Hard, Soft
from qhat.axes.torso import BroNet
from qhat.environments import options, wrappers
from qhat.environments.catalogue import backend_names
from qhat.environments.scales import CONTROL
from qhat.environments.wrappers import Wrapper
from qhat.recipes import DEFAULT
from qhat.recipes.parts import PARTS, names_of, require_known
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError, blaming, require
from qhat.system.files import quote, read_json

NAME = "preset"
"""What the recipe of an environment's preset is called there."""

TUNING_SEEDS = 2_000
"""Settings of presets are chosen on seeds from here on, so that scores are reported on seeds below it."""
CONTROL_SEEDS = 100
"""Seeds below this were looked at while the default recipe and the presets of dm_control were chosen."""


FIRST_DAY = (
    "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3", "FrozenLake-v1",
    "CliffWalking-v1", "Taxi-v4",
)  # fmt: skip
"""Where the default recipe was chosen (docs/default-recipe.md)."""


def first_seed(env: str) -> int:
    """Return the first seed of a run that names none: not one by which the preset was chosen."""
    return CONTROL_SEEDS if env.rpartition(":")[2] in CONTROL else 0


def chosen_on(recipe: str, env: str) -> tuple[range, ...]:
    """Return the seeds by which a recipe's settings were chosen in an environment: no score is of these.

    Args:
        recipe: a recipe's name, or `preset`.
    """
    used = (range(CONTROL_SEEDS),)
    if recipe == NAME:
        return (range(TUNING_SEEDS, 2**31), *(used if env in CONTROL else ()))
    return (range(5_000, 5_040),) if recipe == DEFAULT and env in FIRST_DAY else ()


@dataclasses.dataclass(frozen=True)
class Preset:
    """A recipe, and how long to train with it."""

    recipe: Recipe
    steps: int
    eval_every: int
    eval_episodes: int


_SMALL = Recipe(
    policy=Double(), n_step=3, hidden=(128, 128), batch_size=64, num_envs=8, replay_ratio=0.5,
    learning_rate=1e-3, learning_rate_end=1e-4, target=Hard(every=250), replay_capacity=120_000,
)  # fmt: skip

_ROBOT = Recipe(
    policy=Double(), n_step=3, bins=(2,), hidden=(128, 128), layer_norm=True, target=Soft(0.005),
    batch_size=64, num_envs=8, replay_capacity=250_000, learning_starts=5_000,
    learning_rate=1e-3, learning_rate_end=1e-4, optimiser=Adam(1e-5), replay_ratio=0.75,
    max_gradient_norm=40.0, explore=EpsilonGreedy(1.0, 0.1, 10_000), sampler=Prioritised(),
)  # fmt: skip


# The same with BRO's network: what it takes from one to the next is in docs/presets.md.
_BRO: Mapping[str, Any] = MappingProxyType(
    {
        "torso": BroNet(width=128), "hidden": (), "layer_norm": False, "optimiser": AdamW(),
        "learning_rate": 5e-4, "learning_rate_end": 2e-5,
    }
)  # fmt: skip

# An update per four frames. Without Munchausen's bonus Seaquest stays at 3 for a million frames.
_MINATAR = dataclasses.replace(
    _SMALL, head=Quantile(quantiles=25), policy=Softmax(), bonus=Munchausen(), layer_norm=True,
    hidden=(128,), batch_size=32, num_envs=4, replay_ratio=0.25, learning_rate=3e-4,
    replay_capacity=200_000, optimiser=Adam(1e-5), max_gradient_norm=10.0,
    explore=EpsilonGreedy(1.0, 0.05, 100_000), learning_starts=5_000,
)  # fmt: skip

GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")


def minatar(steps: int = 1_000_000) -> Preset:
    """Return `_MINATAR`, its step size falling until the end."""
    recipe = dataclasses.replace(_MINATAR, learning_rate_steps=steps)
    return Preset(recipe, steps, eval_every=50_000, eval_episodes=30)


def _robot(steps: int, eval_every: int = 50_000, eval_episodes: int = 10, **fields: Any) -> Preset:
    """Return `_ROBOT` with a task's own settings, its step size falling until shortly before the end."""
    recipe = dataclasses.replace(_ROBOT, **{"learning_rate_steps": steps - 20_000, **fields})
    return Preset(recipe, steps, eval_every, eval_episodes)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "Acrobot-v1": Preset(
            dataclasses.replace(
                _SMALL, head=Expected(delta=None), hidden=(256, 256), layer_norm=True, replay_ratio=1.0,
                learning_rate_steps=90_000, replay_capacity=100_000, batch_size=128, sampler=Prioritised(),
                explore=EpsilonGreedy(1.0, 0.05, 15_000),
            ),
            # Checkpoints differ by a few steps: thirty episodes do not tell them apart.
            steps=100_000, eval_every=10_000, eval_episodes=100,
        ),
        "MountainCar-v0": Preset(
            dataclasses.replace(
                _SMALL, gamma=0.98, learning_rate_steps=110_000,
                explore=EpsilonGreedy(1.0, 0.05, 40_000, hold=25),
            ),
            steps=120_000, eval_every=5_000, eval_episodes=30,
        ),
        # Fuel is cheap: only who looks far ahead lands instead of hovering. Returns are hundreds, and so
        # Munchausen's temperature and floor are ten times the paper's.
        "LunarLander-v3": Preset(
            dataclasses.replace(
                _SMALL, head=Quantile(quantiles=25), policy=Softmax(tau=0.3),
                bonus=Munchausen(tau=0.3, floor=-10.0), target=Soft(0.005), layer_norm=True, n_step=8,
                gamma=0.998, learning_rate_end=5e-5, learning_rate_steps=280_000, replay_capacity=200_000,
                explore=EpsilonGreedy(1.0, 0.02, 60_000), learning_starts=2_000, optimiser=Adam(1e-5),
                max_gradient_norm=10.0,
            ),
            # Forty episodes do not tell the last checkpoints apart.
            steps=300_000, eval_every=20_000, eval_episodes=100,
        ),
        **{f"{game}-MinAtar": minatar() for game in GAMES},
        "WalkerWalk-v1": _robot(250_000, gamma=0.98, learning_rate_steps=240_000),
        "WalkerRun-v1": _robot(500_000, gamma=0.98),
        "CheetahRun-v1": _robot(500_000, gamma=0.98, **_BRO),
        "CartpoleSwingup-v1": _robot(250_000, bins=(5,)),
        # Full torque costs a fifth of the reward: a third command is none.
        "HopperStand-v1": _robot(1_000_000, bins=(3,), replay_ratio=0.5, **_BRO),
        "HopperHop-v1": _robot(1_000_000, bins=(3,), replay_ratio=0.5, **_BRO),
        "AcrobotSwingup-v1": _robot(1_000_000, bins=(3,), replay_ratio=0.5, **_BRO),
        # Whether it turns fast enough hangs on single steps: their values, and no stray ones among them.
        "FingerSpin-v1": _robot(
            500_000, bins=(3,), gamma=0.98, n_step=1, explore=EpsilonGreedy(1.0, 0.01, 20_000), **_BRO,
        ),
        # Its episodes succeed or fail: ten do not tell two checkpoints apart.
        "ReacherHard-v1": _robot(
            500_000, eval_episodes=30, bins=(5,), gamma=0.98, replay_ratio=0.5, **_BRO
        ),
        # Seventy-eight numbers of very different size, and twelve joints.
        "QuadrupedWalk-v1": _robot(
            500_000, bins=(3,), hidden=(256, 256), batch_size=128, replay_ratio=0.5, normalise=True,
            explore=EpsilonGreedy(1.0, 0.1, 10_000, per_factor=True),
        ),
        # Gymnasium's rewards are several per step: an error beyond 1 has to count in full.
        "HalfCheetah-v5": _robot(
            3_000_000, 250_000, bins=(3,), replay_ratio=0.5, replay_capacity=1_000_000,
            head=Expected(delta=None), explore=EpsilonGreedy(1.0, 0.1, 10_000, per_factor=True),
        ),
        "Hopper-v5": _robot(
            2_000_000, 250_000, bins=(3,), replay_ratio=0.5, replay_capacity=1_000_000,
            head=Expected(delta=None), explore=EpsilonGreedy(1.0, 0.1, 10_000, per_factor=True),
        ),
        # Success is rare until goals are relabelled; then it comes within a few thousand steps.
        "FetchReach-v4": _robot(
            15_000, 1_000, 50, relabel=Hindsight(), sampler=Uniform(), n_step=1, bins=(3,), gamma=0.98,
            normalise=True, replay_ratio=0.5, learning_starts=1_000, learning_rate_steps=15_000,
            explore=EpsilonGreedy(1.0, 0.05, 5_000, per_factor=True),
        ),
        # Rewards of ±10: an error beyond 1 has to count in full.
        "TurtleBot3-v0": Preset(
            dataclasses.replace(
                _SMALL, head=Expected(delta=None), layer_norm=True, n_step=5, target=Soft(0.005),
                replay_ratio=0.25, learning_rate_steps=240_000, replay_capacity=200_000,
                optimiser=Adam(1e-5), max_gradient_norm=10.0, explore=EpsilonGreedy(1.0, 0.05, 40_000),
            ),
            steps=250_000, eval_every=25_000, eval_episodes=50,
        ),
    }
)  # fmt: skip
"""By the environment's name, whatever backend plays it."""


def preset_of(env_id: str) -> Preset | None:
    """Return the preset of an environment, if it has one."""
    backend, colon, name = env_id.partition(":")
    if not (colon and backend in backend_names()):
        name = env_id
    # Playground's tasks of dm_control have EnvPool's names, without a version.
    return PRESETS.get(name) or (PRESETS.get(f"{name}-v1") if backend == "playground" else None)


FORMAT = "qhat-preset-1"


@dataclasses.dataclass(frozen=True)
class PresetFile:
    """A preset in a file of its own, as `qhat tune` writes it and `qhat train --preset FILE` takes it."""

    env: str
    """What it was found for."""
    preset: Preset
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    wrap: tuple[Wrapper, ...] = ()
    found: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """How it was found, for people; nothing is read of it."""

    def settings(self) -> dict[str, Any]:
        """Return fields of `TrainConfig`."""
        fields = {field.name: getattr(self.preset, field.name) for field in dataclasses.fields(Preset)}
        return {"recipe_name": NAME, **fields, "env_kwargs": dict(self.env_kwargs), "wrap": self.wrap}

    def text(self) -> str:
        """Write it as JSON, with every default spelled out, and the names of parts that are not qhat's."""
        names = names_of(self.preset.recipe)
        written = {
            "format": FORMAT,
            "env": self.env,
            "env_kwargs": dict(self.env_kwargs),
            "wrap": [to_json(part) for part in self.wrap],
            **{field.name: getattr(self.preset, field.name) for field in dataclasses.fields(Preset)},
            "recipe": self.preset.recipe.to_json(),
            **({PARTS: names} if names else {}),
            "found": dict(self.found),
        }
        return json.dumps(written, indent=2) + "\n"


def read_preset(path: Path, parts: Sequence[type[AxisValue]] = ()) -> PresetFile:
    """Read a preset file: data, every value of which is checked.

    Args:
        parts: classes of the recipe's parts from outside the package.

    Raises:
        UsageError: it is missing, damaged, or something else.
    """
    try:
        data = read_json(path)
    except FileNotFoundError:
        raise UsageError(f"There is no preset file '{path}'.") from None
    good = isinstance(data, dict) and data.get("format") == FORMAT
    require(good, f"'{path}' is no preset file: its format is not '{FORMAT}'.")
    with blaming(f"'{path}'"):
        counts = {}
        for name in ("steps", "eval_every", "eval_episodes"):
            value = data.get(name)
            require(
                type(value) is int and 1 <= value < 2**31,
                f"{name} is {quote(value)}; expected a whole number of 1 or more, below 2147483648.",
            )
            counts[name] = value
        require(isinstance(data.get("env"), str), f"env is {quote(data.get('env'))}; expected an id.")
        found = data.get("found", {})
        require(isinstance(found, dict), f"found is {quote(found)}; expected an object.")
        wrap = data.get("wrap", [])
        require(isinstance(wrap, list), f"wrap is {quote(wrap)}; expected a list.")
        kwargs = data.get("env_kwargs", {})
        require(isinstance(kwargs, dict), f"env_kwargs is {quote(kwargs)}; expected an object.")
        require_known(data, parts, "The preset")
        preset = Preset(Recipe.from_json(data.get("recipe"), parts), **counts)
        around, kwargs = wrappers.listed(wrap), options.check(kwargs)
        wrappers.validate(around)
        return PresetFile(data["env"], preset, kwargs, around, found)
