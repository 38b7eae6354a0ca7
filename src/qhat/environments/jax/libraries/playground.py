"""MuJoCo Playground's tasks (arXiv:2502.08844), stepped by MJX inside the compiled loop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import jax
import numpy as np
from jaxtyping import Array

from qhat.environments.extras import load
from qhat.environments.groups import box_of, grouped, space_of_groups
from qhat.environments.jax.libraries.cameras import camera_of
from qhat.environments.jax.single import JaxEnvironment
from qhat.environments.off_screen import prefer_off_screen
from qhat.environments.options import require_known
from qhat.system.errors import UsageError


class Playground(JaxEnvironment):
    """A task of Playground: its raw environment, since its automatic reset hides the last observation.

    Args:
        name: of the task.
        group: which groups of observations are shown, joined by `+`: those of the robot unless given.
        randomise: whether each episode draws masses, frictions and the like anew, as the task says.
        options: overrides of the task's configuration, by their dotted names.
    """

    starts = 64
    may_diverge = True

    def __init__(self, name: str, group: str | None = None, randomise: bool = False, **options: Any):
        env_id = f"playground:{name}"
        prefer_off_screen()
        registry: Any = load("mujoco_playground", env_id).registry
        known = _names(registry.get_default_config(name).to_dict())
        require_known(options, {*known, "group", "randomise"}, env_id)
        # MJX in JAX runs on every device; Warp's steps need CUDA.
        overrides = {"impl": "jax", **options} if "impl" in known else options
        self.env = _loaded(registry, name, overrides)
        self.limit, self.fps = int(self.env._config.episode_length), 1 / self.env.dt
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.env.action_size,), np.float32)
        shown = jax.eval_shape(self.env.reset, jax.random.key(0)).obs
        # Some tasks show one array, and no groups.
        self._group = group or ("state" if isinstance(shown, Mapping) else None)
        self.observation_space = (
            box_of(shown) if self._group is None else space_of_groups(shown, self._group, env_id)
        )
        self._randomiser = registry.get_domain_randomizer(name) if randomise else None
        if randomise and self._randomiser is None:
            raise UsageError(f"Environment '{env_id}' has no domain randomisation; leave randomise out.")
        self._model = self.env.mjx_model
        self._random = [] if self._randomiser is None else self._leaves_that_change()

    def reset(self, key: Array) -> tuple[Any, Any]:
        begin, draw = jax.random.split(key)
        changes = self._changes(draw)
        with self._changed_by(changes):
            state = self.env.reset(begin)
        return (state, changes), self._shown(state)

    def step(self, state: Any, action: Array, key: Array) -> tuple[Any, ...]:
        now, changes = state
        with self._changed_by(changes):
            after = self.env.step(now, action)
        # Cartpole's `done` is a time limit that the task marks as one.
        late = after.info["time_out"] > 0 if "time_out" in after.info else np.False_
        info = {**after.metrics, "truncated": late}
        return (
            (after, changes),
            self._shown(after),
            after.reward,
            (after.done > 0) & ~late,
            info,
        )

    def draw(self, state: Any) -> np.ndarray:
        camera = camera_of(self.env.mj_model)
        return self.env.render([state[0]], height=360, width=480, camera=camera)[0]

    def _shown(self, state: Any) -> Any:
        return state.obs if self._group is None else grouped(state.obs, self._group)

    def _leaves_that_change(self) -> list[int]:
        """Return the places of the model's leaves that the task's randomiser draws."""
        found: list[bool] = []

        def look(key: Array) -> Array:
            axes = self._drawn(key)[1]
            same = jax.tree.map(lambda _, axis: axis is None, self._model, axes)
            found.extend(not leaf for leaf in jax.tree.leaves(same))
            return key

        jax.eval_shape(look, jax.random.key(0))
        return [place for place, changes in enumerate(found) if changes]

    def _changes(self, key: Array) -> list[Array]:
        if self._randomiser is None:
            return []
        leaves = jax.tree.leaves(self._drawn(key)[0])
        return [leaves[place][0] for place in self._random]

    def _drawn(self, key: Array) -> tuple[Any, Any]:
        """Return the model with a leading axis where it is drawn, and the axes."""
        assert self._randomiser is not None
        return self._randomiser(self._model, key[None])

    @contextlib.contextmanager
    def _changed_by(self, changes: list[Array]) -> Iterator[None]:
        """Put drawn leaves in the place of the model's, while a function is traced."""
        leaves, structure = jax.tree.flatten(self._model)
        for place, leaf in zip(self._random, changes, strict=True):
            leaves[place] = leaf
        self.env.unwrapped._mjx_model = jax.tree.unflatten(structure, leaves)
        try:
            yield
        finally:
            self.env.unwrapped._mjx_model = self._model


def _loaded(registry: Any, name: str, overrides: Mapping[str, Any]) -> Any:
    try:
        return registry.load(name, config_overrides=dict(overrides))
    except Exception as error:
        # Without git, or without a network.
        if not isinstance(error, FileNotFoundError) and type(error).__name__ != "CalledProcessError":
            raise
        raise UsageError(
            f"Environment 'playground:{name}' needs MuJoCo Menagerie's models, which Playground gets with"
            f" git when it is made, and that failed ({error})."
        ) from None


def _names(config: Mapping[str, Any], before: str = "") -> set[str]:
    """Return the dotted names of a configuration's values."""
    names: set[str] = set()
    for key, value in config.items():
        names |= _names(value, f"{before}{key}.") if isinstance(value, Mapping) else {before + key}
    return names
