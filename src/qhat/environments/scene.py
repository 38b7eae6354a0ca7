"""One copy of an environment that can be drawn."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from qhat.environments.base import Spec
from qhat.environments.catalogue import backend_of, find
from qhat.environments.envpool.hosted import EnvPoolHost
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.host import HostEnvironment
from qhat.environments.jax.batch import JaxBatch
from qhat.environments.jax.drawn import drawn
from qhat.environments.make_args import MakeArgs
from qhat.environments.off_screen import how_to_install, prepare_drawing
from qhat.environments.reference import lacks, reference_builder
from qhat.environments.wrappers import Wrapper
from qhat.system.errors import QhatError, UsageError, described

SIZE = (480, 360)
"""Width and height of EnvPool's pictures, in pixels."""
FPS = 30.0
"""Pictures per second where an environment does not say how fast its steps are."""
DRAWABLE = (
    "An environment that can be drawn has metadata={'render_modes': ['rgb_array']}, takes render_mode and"
    " returns an array from render()."
)


@dataclasses.dataclass(frozen=True)
class Scene:
    """The copy, and what draws it."""

    environment: HostEnvironment
    draw: Callable[[], Any]
    fps: float
    """Steps per second at which it looks as fast as it is."""

    def picture(self) -> np.ndarray:
        """Return what it looks like now: `[height, width, 3]` of uint8, both even."""
        try:
            with warnings.catch_warnings():
                # What Gymnasium's checker has to say of pictures: how fast they follow, of which type.
                warnings.filterwarnings("ignore", message=".*WARN: ", category=UserWarning)
                drawn = self.draw()
        except Exception as error:
            about = described(error)
            advice = how_to_install() if "gl" in about.lower() else ""
            raise QhatError(f"'{self.environment.spec.id}' cannot be drawn ({about}).{advice}") from error
        return as_picture(drawn, self.environment.spec.id)


def scene_of(
    spec: Spec,
    options: Mapping[str, Any],
    wrap: Sequence[Wrapper],
    bins: Sequence[int],
    seed: int,
    log: Sequence[str] = (),
) -> Scene:
    """Make a copy of an environment for a policy to play in: the reference, where there is one.

    Args:
        log: names of values of `info` that its timesteps have; NaN where the reference has none.

    Raises:
        UsageError: it has no pictures, or what draws them is not installed.
    """
    prepare_drawing()
    entry = find(spec.id, options)
    if spec.backend == "qhat":
        import qhat.robots  # noqa: F401

        drawn = dataclasses.replace(spec, reference=f"qhat/{entry.name}")
        build = reference_builder(drawn, {**options, "render_mode": "rgb_array"}, wrap)
        return gymnasium_scene(build, spec.id, bins, seed, log)
    if spec.reference and not lacks(spec.reference):
        build = reference_builder(spec, {**options, "render_mode": "rgb_array"}, wrap)
        return gymnasium_scene(build, spec.id, bins, seed, log)
    if backend_of(entry.backend).in_jax:
        args = MakeArgs(1, (seed,), options=options, bins=bins, log=tuple(log))
        made = backend_of(entry.backend).make(entry, args)
        return jax_scene(made, wrap, seed)
    if backend_of(entry.backend).simulates:
        more = {**options, "render_mode": "rgb_array"}
        args = MakeArgs(1, (seed,), options=more, bins=bins, log=tuple(log))
        robots = backend_of(entry.backend).make(entry, args)
        return Scene(robots, robots.draw, robots.fps)
    if spec.backend == "envpool":
        pool = EnvPoolHost(entry, 1, (seed,), 0, options=options, bins=bins, picture=SIZE, log=log)
        return Scene(pool, pool.draw, FPS)
    raise UsageError(
        f"'{spec.id}' has no pictures: {spec.backend} draws none, and Gymnasium has no such task."
    )


def jax_scene(batch: JaxBatch, wrap: Sequence[Wrapper], seed: int) -> Scene:
    """Make a scene of an environment in JAX. Raises `UsageError` where its class does not draw."""
    environment, draw = drawn(batch, wrap, seed)
    return Scene(environment, draw, float(batch.single.fps))


def gymnasium_scene(
    build: Callable[[], gymnasium.Env],
    env_id: str,
    bins: Sequence[int],
    seed: int,
    log: Sequence[str] = (),
) -> Scene:
    """Make a scene of what a function makes.

    Raises:
        UsageError: it was not made with `render_mode="rgb_array"`.
    """
    try:
        made = build()
    except TypeError as error:
        raise UsageError(
            f"'{env_id}' cannot be made with render_mode='rgb_array' ({error}). {DRAWABLE}"
        ) from None
    if made.render_mode != "rgb_array":
        modes = ", ".join(made.metadata.get("render_modes", ())) or "none"
        made.close()
        raise UsageError(
            f"'{env_id}' has render_mode {made.render_mode!r} (it knows {modes}); expected 'rgb_array', to"
            f" draw pictures. {DRAWABLE}"
        )
    environment = GymnasiumEnvironment.of(env_id, lambda: made, 1, (seed,), bins=bins, log=log)
    return Scene(environment, made.render, float(made.metadata.get("render_fps", FPS)))


def as_picture(drawn: Any, env_id: str) -> np.ndarray:
    """Make `[height, width, 3]` of uint8 of what an environment drew, large enough to be seen.

    Raises:
        UsageError: it is no picture.
    """
    picture = np.asarray(drawn)
    if picture.ndim != 3 or picture.shape[-1] != 3:
        raise UsageError(f"'{env_id}' drew an array of shape {picture.shape}; expected [height, width, 3].")
    if picture.dtype.kind == "f":
        picture = np.rint(255 * np.clip(picture, 0, 1))
    # A grid of 10 × 10 cells is drawn with a pixel each.
    times = max(1, SIZE[1] // max(picture.shape[:2]))
    picture = picture.astype(np.uint8).repeat(times, axis=0).repeat(times, axis=1)
    height, width = (side - side % 2 for side in picture.shape[:2])
    return np.ascontiguousarray(picture[:height, :width])
