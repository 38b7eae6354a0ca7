"""The mobile robot as a Gymnasium environment: the compiled one's own functions, one step at a time."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import jax
import numpy as np

from qhat.environments.turtlebot3 import physics as turtlebot3
from qhat.environments.turtlebot3.physics import (
    BEAMS,
    FARTHEST,
    NEAREST,
    RADIUS,
    TURNS,
    Robot,
    TurtleBot3Options,
)
from qhat.system.errors import QhatError

PIXELS = 480


class TurtleBot3(gymnasium.Env):
    """`qhat/TurtleBot3-v0`; its options are those of `TurtleBot3Options`.

    `info["reached"]` says whether this step came to a goal, `info["collided"]` whether it met something.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / turtlebot3.SECONDS)}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **options: Any):
        self._options = TurtleBot3Options.of(options, "qhat/TurtleBot3-v0")
        self.render_mode = render_mode
        far = self._options.arena * 2**0.5
        low, high = [NEAREST] * BEAMS + [-np.pi, 0.0], [FARTHEST] * BEAMS + [np.pi, far]
        self.observation_space = gymnasium.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
        self.action_space = gymnasium.spaces.Discrete(len(TURNS))
        self._robot: Robot | None = None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._robot, observation = _begin(self._key(), self._options)
        return np.asarray(observation), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._robot, observation, outcome = _step(self._now, np.int32(action), self._key(), self._options)
        info = {"reached": bool(outcome.reached), "collided": bool(outcome.collided)}
        return np.asarray(observation), float(outcome.reward), info["collided"], bool(outcome.late), info

    def render(self) -> np.ndarray:
        """Draw the arena from above, with the lidar's rays."""
        return draw(self._now, self._options)

    @property
    def _now(self) -> Robot:
        if self._robot is None:
            raise QhatError("Environment 'qhat/TurtleBot3-v0' was not reset; expected reset() first.")
        return self._robot

    def _key(self) -> Any:
        return jax.random.key(int(self.np_random.integers(2**31)))


def draw(robot: Robot, options: TurtleBot3Options, pixels: int = PIXELS) -> np.ndarray:
    """Return a picture `[pixels, pixels, 3]`, uint8: walls, cylinders, goal, robot, lidar."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    figure = Figure(figsize=(1, 1), dpi=pixels)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    side = options.arena / 2
    axes.set_xlim(-1.04 * side, 1.04 * side)
    axes.set_ylim(-1.04 * side, 1.04 * side)
    axes.plot(
        [-side, side, side, -side, -side], [-side, -side, side, side, -side], "-", color="0.2", lw=0.5
    )
    place, facing = np.asarray(robot.place), float(robot.facing)
    angles = facing + np.arange(BEAMS) * 2 * np.pi / BEAMS
    reach = np.minimum(np.asarray(_lidar(robot, options)), FARTHEST)
    ends = place + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for end in ends:
        axes.plot(*zip(place, end, strict=True), "-", color="#c8d8ee", lw=0.25)
    for x, y in np.asarray(robot.cylinders):
        axes.add_patch(Circle((x, y), options.obstacle_radius, color="#b4552d"))
    axes.add_patch(
        Circle(tuple(np.asarray(robot.goal)), turtlebot3.REACHED, color="#a5cba5", lw=0, zorder=0)
    )
    axes.add_patch(Circle(tuple(place), RADIUS, color="#1f3a5f", lw=0, zorder=3))
    nose = place + RADIUS * np.array([np.cos(facing), np.sin(facing)])
    axes.plot(*zip(place, nose, strict=True), "-", color="white", lw=0.6, zorder=4)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@functools.partial(jax.jit, static_argnums=1)
def _begin(key: Any, options: TurtleBot3Options) -> Any:
    first, look = jax.random.split(key)
    robot = turtlebot3.begin(first, options)
    return robot, turtlebot3.observe(robot, look, options)


@functools.partial(jax.jit, static_argnums=3)
def _step(robot: Robot, action: Any, key: Any, options: TurtleBot3Options) -> Any:
    drive, look = jax.random.split(key)
    robot, outcome = turtlebot3.advance(robot, action, drive, options)
    return robot, turtlebot3.observe(robot, look, options), outcome


_lidar = jax.jit(turtlebot3.lidar, static_argnums=1)
