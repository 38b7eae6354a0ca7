"""A mobile robot that drives from goal to goal among walls and moving obstacles, as pure functions.

Geometry and speeds are those of ROBOTIS's TurtleBot3 Burger and of its DQN example: a round robot of
radius 0.105 m, a lidar of 24 beams up to 3.5 m, 0.15 m/s ahead at one of five turning rates, 800 steps.
Lengths are metres, times seconds, angles radians.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from qhat.system.errors import UsageError, near_miss, require

RADIUS = 0.105
"""Of the robot."""
BEAMS, NEAREST, FARTHEST = 24, 0.12, 3.5
"""Of the lidar: evenly around the robot, the first straight ahead; its least and its largest reading."""
SPEED, TURNS = 0.15, (1.5, 0.75, 0.0, -0.75, -1.5)
"""Ahead, always, and the turning rate of every action: left is positive."""
SECONDS = 0.2
"""Between two actions: the lidar turns five times a second."""
REACHED = 0.2
"""Distance from the robot's centre at which a goal counts as reached."""
CLEAR = 0.6
"""What lies at least between robot and obstacles at first, and between robot and next goal."""
GOAL, COLLISION, PROGRESS, STEP = 10.0, -10.0, 5.0, -0.02
"""Rewards: for a goal, for a collision, per metre nearer to the goal, for every step."""
TRIES = 64
"""Places that are drawn to choose one from that is clear."""


@dataclasses.dataclass(frozen=True)
class TurtleBot3Options:
    """The arena, and what a real robot adds to it."""

    arena: float = 4.0
    """Side of the square within the walls."""
    obstacles: int = 2
    """Cylinders that drive straight on and bounce off the walls."""
    obstacle_radius: float = 0.15
    obstacle_speed: float = 0.1
    max_episode_steps: int = 800
    """Steps after which an episode is cut."""
    goal_steps: int = 300
    """Steps without a goal after which an episode is cut."""
    lidar_noise: float = 0.0
    """Standard deviation of a beam's reading."""
    actuation_delay: int = 0
    """Steps after which a command acts; the robot drives straight on at first."""
    friction: float = 0.0
    """Largest share of the commanded speed that an episode's floor takes; every episode draws its own."""

    @staticmethod
    def of(options: Mapping[str, object], env_id: str) -> "TurtleBot3Options":
        """Read options by name. Raises `UsageError` for the first that is unknown or has no meaning."""
        values: dict[str, Any] = {
            field.name: field.default for field in dataclasses.fields(TurtleBot3Options)
        }
        for name in options:
            if name not in values:
                raise UsageError(
                    f"Environment '{env_id}' has no option '{name}'; it has {', '.join(values)}."
                    + near_miss(name, values)
                )
        values |= options
        for name, least, most in (
            ("arena", 2.0, 100.0), ("obstacles", 0, 20), ("obstacle_radius", 0.01, 0.5),
            ("obstacle_speed", 0.0, 1.0), ("max_episode_steps", 1, 10**6), ("goal_steps", 1, 10**6),
            ("lidar_noise", 0.0, 1.0), ("actuation_delay", 0, 20), ("friction", 0.0, 0.9),
        ):  # fmt: skip
            value = values[name]
            kind = int if isinstance(least, int) else int | float
            require(
                isinstance(value, kind) and not isinstance(value, bool) and least <= value <= most,
                f"Environment '{env_id}': {name} is {value!r}; expected {'a whole number' * (kind is int)}"
                f"{'a number' * (kind is not int)} from {least} to {most}.",
            )
        return TurtleBot3Options(**values)


class Robot(eqx.Module):
    """One arena."""

    place: Float[Array, " 2"]
    """The middle of the arena is (0, 0)."""
    facing: Float[Array, ""]
    """0 is along the first axis; left is positive."""
    goal: Float[Array, " 2"]
    cylinders: Float[Array, "N 2"]
    velocities: Float[Array, "N 2"]
    steps: Int[Array, ""]
    since: Int[Array, ""]
    """Steps since the episode's begin or its last goal."""
    commands: Int[Array, " D"]
    """Actions that act later, the next one first."""
    grip: Float[Array, ""]
    """Share of the commanded speed that the floor leaves."""


class Outcome(eqx.Module):
    """What a step brought."""

    reward: Float[Array, ""]
    reached: Bool[Array, ""]
    """Whether the robot came to its goal; the next one is set."""
    collided: Bool[Array, ""]
    """Whether it touches a wall or a cylinder: the episode's end."""
    late: Bool[Array, ""]
    """Whether the episode is cut here."""
    success: Float[Array, ""]
    """1 where it came to its goal, 0 where it collided or gave the goal up, NaN otherwise: a goal that the
    episode's limit cuts short was neither reached nor missed."""


def begin(key: Array, options: TurtleBot3Options) -> Robot:
    """Draw an arena."""
    place_key, face_key, goal_key, key, way_key, grip_key = jax.random.split(key, 6)
    inside = options.arena / 2 - 2 * RADIUS
    place = jax.random.uniform(place_key, (2,), minval=-inside, maxval=inside)
    room = options.arena / 2 - options.obstacle_radius
    keys = jax.random.split(key, options.obstacles)
    clear = CLEAR + RADIUS + options.obstacle_radius
    ways = jax.random.uniform(way_key, (options.obstacles,), maxval=2 * jnp.pi)
    cylinders = jax.vmap(lambda cylinder_key: _away(cylinder_key, place, room, clear))(keys)
    return Robot(
        place=place,
        facing=jax.random.uniform(face_key, minval=-jnp.pi, maxval=jnp.pi),
        goal=_away(goal_key, place, inside, CLEAR, cylinders, options),
        cylinders=cylinders,
        velocities=options.obstacle_speed * jnp.stack([jnp.cos(ways), jnp.sin(ways)], axis=1),
        steps=jnp.int32(0),
        since=jnp.int32(0),
        commands=jnp.full(options.actuation_delay, len(TURNS) // 2, jnp.int32),
        grip=1.0 - options.friction * jax.random.uniform(grip_key),
    )


def advance(
    robot: Robot, action: Int[Array, ""], key: Array, options: TurtleBot3Options
) -> tuple[Robot, Outcome]:
    """Drive for one step."""
    queue = jnp.concatenate([robot.commands, action[None].astype(jnp.int32)])
    turn = robot.grip * jnp.asarray(TURNS)[queue[0]] * SECONDS
    way = robot.grip * SPEED * SECONDS
    # Along an arc: the chord has the direction of its middle, and is a little shorter than the arc.
    ahead = robot.facing + turn / 2
    place = robot.place + way * jnp.sinc(turn / (2 * jnp.pi)) * jnp.stack([jnp.cos(ahead), jnp.sin(ahead)])
    cylinders, velocities = _drift(robot, options)
    before, after = (jnp.linalg.norm(robot.goal - at) for at in (robot.place, place))
    collided = _touches(place, cylinders, options)
    reached = (after < REACHED) & ~collided
    inside = options.arena / 2 - 2 * RADIUS
    goal = jnp.where(reached, _away(key, place, inside, CLEAR, cylinders, options), robot.goal)
    steps, since = robot.steps + 1, jnp.where(reached, 0, robot.since + 1)
    reward = PROGRESS * (before - after) + STEP + GOAL * reached + COLLISION * collided
    lost = collided | (since >= options.goal_steps)
    late = ((steps >= options.max_episode_steps) | lost) & ~collided
    success = jnp.where(reached, 1.0, jnp.where(lost, 0.0, jnp.nan))
    moved = Robot(
        place, _angle(robot.facing + turn), goal, cylinders, velocities, steps, since, queue[1:], robot.grip
    )
    return moved, Outcome(reward, reached, collided, late, success)


def observe(robot: Robot, key: Array, options: TurtleBot3Options) -> Float[Array, " 26"]:
    """Return what the robot knows: 24 beams, the angle to its goal (left is positive), and the distance."""
    beams = lidar(robot, options)
    noise = options.lidar_noise * jax.random.normal(key, beams.shape)
    to = robot.goal - robot.place
    heading = _angle(jnp.arctan2(to[1], to[0]) - robot.facing)
    beams = jnp.clip(beams + noise, NEAREST, FARTHEST)
    return jnp.concatenate([beams, heading[None], jnp.linalg.norm(to)[None]])


def lidar(robot: Robot, options: TurtleBot3Options) -> Float[Array, " 24"]:
    """Return the distance from the robot's centre to what every beam hits first."""
    angles = robot.facing + jnp.arange(BEAMS) * (2 * jnp.pi / BEAMS)
    rays = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    # A beam along a wall never meets it.
    safe = jnp.where(jnp.abs(rays) < 1e-6, 1e-6, rays)
    walls = jnp.min((jnp.sign(safe) * options.arena / 2 - robot.place) / safe, axis=1)
    to = robot.cylinders - robot.place
    along = rays @ to.T
    aside = jnp.sum(to**2, axis=1) - along**2
    depth = options.obstacle_radius**2 - aside
    hits = (depth >= 0) & (along > 0)
    ways = jnp.where(hits, along - jnp.sqrt(jnp.maximum(depth, 0.0)), jnp.inf)
    return jnp.minimum(walls, jnp.min(ways, axis=1, initial=jnp.inf))


def _touches(place: Array, cylinders: Array, options: TurtleBot3Options) -> Bool[Array, ""]:
    wall = jnp.max(jnp.abs(place)) > options.arena / 2 - RADIUS
    between = jnp.linalg.norm(cylinders - place, axis=1)
    return wall | jnp.any(between < RADIUS + options.obstacle_radius)


def _drift(robot: Robot, options: TurtleBot3Options) -> tuple[Array, Array]:
    """Move the cylinders on; one that meets a wall turns back."""
    room = options.arena / 2 - options.obstacle_radius
    moved = robot.cylinders + robot.velocities * SECONDS
    out = jnp.abs(moved) > room
    return jnp.clip(moved, -room, room), jnp.where(out, -robot.velocities, robot.velocities)


def _away(
    key: Array,
    place: Float[Array, " 2"],
    room: float,
    least: float,
    cylinders: Float[Array, "N 2"] | None = None,
    options: TurtleBot3Options | None = None,
) -> Float[Array, " 2"]:
    """Draw a place within ±room that is at least so far from `place`; of 64 the farthest, if none is.

    Args:
        cylinders: where a robot cannot stand now; the place is beside them.
    """
    tries = jax.random.uniform(key, (TRIES, 2), minval=-room, maxval=room)
    far = jnp.linalg.norm(tries - place, axis=1)
    good = far >= least
    if cylinders is not None and options is not None:
        between = jnp.linalg.norm(tries[:, None] - cylinders, axis=2)
        good &= jnp.all(between > RADIUS + options.obstacle_radius, axis=1)
    return tries[jnp.where(jnp.any(good), jnp.argmax(good), jnp.argmax(far))]


def _angle(angle: Array) -> Array:
    """Return it within [−π, π)."""
    return (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
