"""One of EnvPool's tasks: its options, and what a row of its says, wherever it is stepped."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from qhat.axes.actions import BINS, Actions
from qhat.environments import info, success
from qhat.environments.base import Spec
from qhat.environments.catalogue import Entry
from qhat.environments.extras import load
from qhat.environments.finite import sieve
from qhat.environments.observations import Observations
from qhat.system.errors import UsageError, near_miss, require

HOST = "host"
"""The one option that is not EnvPool's: step in Python, beside the compiled update."""
SET_BY_QHAT = (
    "num_envs", "batch_size", "num_threads", "max_num_players", "thread_affinity_offset", "base_path",
    "seed", "env_seed", "gym_reset_return_info", "task", "zero_discount_on_life_loss",
)  # fmt: skip
"""Of EnvPool's options those that are no user's: what is run, how, and a discount that is not handed on."""
ATARI: dict[str, object] = {"repeat_action_probability": 0.25, "reward_clip": True}
"""Where qhat departs from EnvPool's defaults for Atari.

Sticky actions: Machado et al. 2018 (arXiv:1709.06009, §5.2). Rewards are clipped to their sign in what is
learned from (Mnih et al. 2015, methods); scores never are.
"""
AT_LEAST_1 = ("stack_num", "frame_skip", "img_height", "img_width", "noop_max", "max_episode_steps")
"""Options whose values below 1 end the whole process, or have no meaning."""


class Rows(NamedTuple):
    """What one step of a pool brought, `[N]` each: fields of `Timestep`."""

    reward: Any
    terminated: Any
    truncated: Any
    real: Any
    score: Any = None
    over: Any = None
    broken: Any = None
    success: Any = None
    info: Any = None


class Past(NamedTuple):
    """What a step's rows depend on of the step before, `[N]` each; false at first."""

    ended: Any
    """Whether it ended the episode: then this one is a reset."""
    reached: Any
    """What `success.judge` remembers."""
    failed: Any
    """What `finite.sieve` remembers."""
    lives: Any
    """Of a game that goes on after a lost life, how many are left, float32; infinite elsewhere."""

    @staticmethod
    def nothing(shape: tuple[int, ...], xp: Any) -> Past:
        """Return what there is before the first step."""
        no = xp.zeros(shape, bool)
        return Past(no, no, no, xp.full(shape, np.inf, "float32"))


@dataclasses.dataclass(frozen=True)
class PoolTask:
    """An entry of the catalogue with its options resolved."""

    entry: Entry
    options: Mapping[str, object]
    """Those that a pool is made with: the user's, and qhat's own defaults."""
    atari: bool
    stack: int
    """Frames of an observation."""
    host: bool
    """Whether the user asked for steps in Python."""
    bins: tuple[int, ...] = BINS
    """Commands of every joint, where actions are continuous."""
    goal: str | None = None
    """Name in `info` that reports success, where the task has one."""
    log: tuple[str, ...] = ()
    """Names in `info` that a run logs."""

    @staticmethod
    def of(
        entry: Entry,
        options: Mapping[str, object] | None = None,
        bins: Sequence[int] = BINS,
        log: Sequence[str] = (),
    ) -> PoolTask:
        """Resolve options, before any pool is made.

        Raises:
            UsageError: an option or a name to log that the task does not have, or a value that it does not
                take.
        """
        spec = load("envpool", entry.id).make_spec(entry.name)
        config = spec.config._asdict()
        known = {HOST: False} | {key: value for key, value in config.items() if key not in SET_BY_QHAT}
        options = dict(options or {})
        for key, value in options.items():
            _require_option(entry.id, key, value, known)
        atari = "repeat_action_probability" in known
        resolved = {**(ATARI if atari else {}), **options}
        host = bool(resolved.pop(HOST, False))
        stack = int(str(resolved.get("stack_num", config["stack_num"]))) if atari else 1
        goal = success.key_of([name.removeprefix("info:") for name in spec.state_array_spec])
        info.require_known(log, [info.PREFIX + name for name in _numbers_in(spec)], entry.id)
        names = tuple(name.removeprefix(info.PREFIX) for name in log)
        return PoolTask(entry, resolved, atari, stack, host, tuple(bins), goal, names)

    def make(self, seeds: Sequence[int], picture: tuple[int, int] | None = None) -> Any:
        """Make a pool with one environment for each of EnvPool's seeds.

        Args:
            picture: width and height in pixels, of a pool that can be drawn.
        """
        drawn = {} if picture is None else {
            "render_mode": "rgb_array", "render_width": picture[0], "render_height": picture[1],
        }  # fmt: skip
        envpool = load("envpool", self.entry.id)
        with warnings.catch_warnings():
            # Of EnvPool's own making: it builds its spaces from float64 bounds.
            warnings.filterwarnings("ignore", message=".*precision lowered by casting")
            try:
                pool = envpool.make(
                    self.entry.name, env_type="gymnasium", num_envs=len(seeds), num_threads=1,
                    seed=list(seeds), **self.options, **drawn,
                )  # fmt: skip
                assert pool.observation_space is not None
            except RuntimeError as error:
                said = ", ".join(f"{key}={value}" for key, value in self.options.items())
                raise UsageError(
                    f"Environment '{self.entry.id}' cannot be made by EnvPool ({error}); options: {said}."
                ) from None
        return pool

    def spaces(self, pool: Any) -> tuple[Observations, Spec]:
        """Read what a pool's environments show and take."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*precision lowered by casting")
            observations = Observations.of(pool.observation_space, self.entry.id)
            actions = Actions.of(pool.action_space, f"Environment '{self.entry.id}'", self.bins)
        spec = Spec(
            id=self.entry.id,
            backend="envpool",
            shape=observations.shape,
            dtype=observations.dtype,
            actions=actions,
            reference=self.entry.reference,
            stack=self.stack,
            options=tuple(sorted(self.options.items())),
            layout=observations,
        )
        return observations, spec

    @staticmethod
    def command(actions: Actions, choice: Any, xp: Any) -> Any:
        """Return what a pool takes for choices `[N, F]`: int32 where actions are whole numbers."""
        action = actions.to_env(choice, xp)
        return action.astype("int32") if actions.commands is None else action

    @property
    def info_names(self) -> tuple[str, ...]:
        """Names in `info` that `rows` reads."""
        read = ("reward", "terminated", "lives") if self.atari else (self.goal,) if self.goal else ()
        return tuple(dict.fromkeys((*read, *self.log)))

    def rows(
        self,
        past: Past,
        observation: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        said: Any,
        xp: Any,
        layout: Observations | None = None,
    ) -> tuple[Any, Rows, Past]:
        """Interpret one step of a pool.

        Args:
            past: what the previous step returned.
            said: its `info`.
            layout: what observations are made of.

        Returns:
            the observation to act on, the rows, and `past` for the next step.
        """
        ended = past.ended
        reward = reward.astype("float32")
        observation, reward, sound, failed = sieve(observation, reward, past.failed, xp, layout)
        real = ~ended & sound
        cut = truncated & real
        rows = Rows(reward, terminated & real, cut & ~terminated, real, broken=~ended & ~sound)
        over, reached, lives = rows.terminated | rows.truncated, past.reached, past.lives
        if self.goal:
            succeeded, reached = success.judge(self.goal, said[self.goal], reached, real, over, xp)
            rows = rows._replace(success=succeeded)
        elif self.atari:
            # A life is an episode with `episodic_life`; a score is a whole game's. After a lost life
            # EnvPool plays no-ops. It does not report a game that ends in them: it has all lives again.
            left = said["lives"].astype("float32")
            game = ((said["terminated"] > 0) & ~ended) | cut
            goes_on = rows.terminated & ~game
            rows = rows._replace(score=said["reward"], over=game | (ended & (left > past.lives)))
            lives = xp.where(goes_on, left, xp.float32(np.inf))
        if self.log:
            columns = [said[name].astype("float32") for name in self.log]
            rows = rows._replace(info=xp.stack(columns, axis=-1))
        # A row that is not believed may still be an episode's last: the next one is its reset.
        return observation, rows, Past((terminated | truncated) & ~ended, reached, failed, lives)


def _numbers_in(spec: Any) -> list[str]:
    """Return the names in `info` that are one number for each copy."""
    names = {
        name.removeprefix("info:"): tuple(array.shape)
        for name, array in spec.state_array_spec.items()
        if name.startswith("info:") and name != "info:env_id" and not name.startswith("info:players.")
    }
    return [*(name for name, shape in names.items() if shape in ((), (-1,))), "elapsed_step"]


def _require_option(env_id: str, key: str, value: object, known: Mapping[str, object]) -> None:
    if key not in known:
        raise UsageError(
            f"Environment '{env_id}' has no option '{key}'; it has {', '.join(sorted(known))}."
            + near_miss(key, known)
        )
    like = known[key]
    wanted, kinds = _kinds(like)
    good = isinstance(value, kinds) and isinstance(value, bool) == isinstance(like, bool)
    require(
        good, f"Option {key} of environment '{env_id}' is {value!r}; expected {wanted}, such as {like!r}."
    )
    if key in AT_LEAST_1 and isinstance(value, int):
        require(value >= 1, f"Option {key} of environment '{env_id}' is {value}; expected 1 or more.")
    if key == "repeat_action_probability" and isinstance(value, int | float):
        require(
            0 <= value <= 1, f"Option {key} of environment '{env_id}' is {value}; expected within [0, 1]."
        )


def _kinds(like: object) -> tuple[str, tuple[type, ...]]:
    """What values are like a default."""
    if isinstance(like, bool):
        return "true or false", (bool,)
    if isinstance(like, int):
        return "a whole number", (int,)
    if isinstance(like, float):
        return "a number", (int, float)
    if isinstance(like, str):
        return "text", (str,)
    return "a list", (list, tuple)
