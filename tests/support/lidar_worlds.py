"""Random worlds that a simulated TurtleBot3 drives through, with what an LDS-01 really publishes.

Nothing here is taken from the exported package: outlines are the URDF's numbers again, a contact is
geometry of its own. `python tests/support/lidar_worlds.py 500` drives 500 worlds and
says how it went.

The lidar (hls_lfcd_lds_driver): 360 readings at 5 Hz, raw millimetres / 1000, `range_min` 0.12 and
`range_max` 3.5 that nothing is filtered by. 0.0 beyond 3.5 m; below 0.12 m either 0.0 or what was
measured; 0.0 at random; noise of up to 15 mm below half a metre and 3.5 % beyond. Its readings are taken
while it turns and come a tick later. The wheels follow a command after 0.1 s and with limited
acceleration; the odometry is 2 % wrong.
"""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np

TICK = 0.05
DELAY = 2
"""Ticks until the wheels follow."""
POSSIBLE = 0.5
"""Seconds before a contact from which on a robot could have stood: a turn of the lidar 0.2, a tick until
the scan comes and one until the node looks, 0.1 until the wheels follow, 0.1 until they stand."""
OUTLINES = {
    "burger": (((-0.102, 0.038, 0.070), (-0.033, 0.033, 0.089)), -0.032),
    "waffle": (((-0.197, 0.069, 0.133), (-0.033, 0.033, 0.153)), -0.064),
}
"""From x, to x and half of the width of body and wheels, from the wheels' axis; the lidar's x."""


@dataclasses.dataclass
class World:
    """A square room with cylinders, some of which move, and boxes, at any angle."""

    side: float
    centres: np.ndarray
    radii: np.ndarray
    velocities: np.ndarray
    boxes: np.ndarray
    """`[boxes, 4 corners, 2]`."""

    @staticmethod
    def draw(random: np.random.Generator, clear: float) -> World:
        """Draw one; within `clear` of the middle nothing stands."""
        side = float(random.choice([2.5, 4.0, 8.0]))
        count = int(random.integers(2, 9))
        radii = random.choice([0.01, 0.03, 0.08, 0.15, 0.3], count)
        moving = random.random(count) < 0.3
        ways = random.uniform(0, 2 * math.pi, count)
        speeds = random.uniform(0.02, 0.1, count) * moving
        sizes = random.uniform(0.02, 0.4, (int(random.integers(0, 4)), 2))
        reach = np.concatenate([radii, np.hypot(*(sizes / 2).T)])
        places = random.uniform(-side / 2, side / 2, (len(reach), 2))
        far = np.maximum(np.hypot(*places.T), 1e-6)
        # What is too near to the start goes outwards.
        places *= np.maximum(1.0, (clear + reach) / far)[:, None]
        turns = random.uniform(0, math.pi, len(sizes))
        signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) / 2
        boxes = np.stack([place + signs * size @ _turned(turn).T for place, size, turn in zip(
            places[count:], sizes, turns, strict=True)]) if len(sizes) else np.zeros((0, 4, 2))  # fmt: skip
        velocities = speeds[:, None] * np.stack([np.cos(ways), np.sin(ways)], axis=1)
        return World(side, places[:count], radii, velocities, boxes)

    def move(self) -> None:
        """Let a tick pass; what meets a wall turns back."""
        self.centres = self.centres + TICK * self.velocities
        out = (np.abs(self.centres) > self.side / 2) & (self.centres * self.velocities > 0)
        self.velocities = np.where(out, -self.velocities, self.velocities)

    def cast(self, origin: np.ndarray, angles: np.ndarray) -> np.ndarray:
        """Return how far every ray sees."""
        ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            hits = ((np.sign(ways) * self.side / 2 - origin) / ways).min(axis=1)
            to = self.centres - origin
            along = ways @ to.T
            depth = self.radii**2 - (np.sum(to**2, axis=1) - along**2)
            circles = np.where((depth >= 0) & (along > 0), along - np.sqrt(np.maximum(depth, 0)), np.inf)
            starts = self.boxes.reshape(-1, 2) - origin
            edges = (np.roll(self.boxes, -1, axis=1) - self.boxes).reshape(-1, 2)
            cross = ways[:, :1] * edges[:, 1] - ways[:, 1:] * edges[:, 0]
            reach = (starts[:, 0] * edges[:, 1] - starts[:, 1] * edges[:, 0]) / cross
            share = (starts[:, 0] * ways[:, 1:] - starts[:, 1] * ways[:, :1]) / cross
            sides = np.where((reach > 0) & (share >= 0) & (share <= 1), reach, np.inf)
        return np.minimum(hits, np.min(np.hstack([circles, sides]), axis=1, initial=np.inf))

    def touched(self, pose: np.ndarray, outline: Any) -> str | None:
        """Return what a robot's outline touches: by corners, separating axes and distances."""
        if self._is_far(pose[:2]):
            return None
        turn = _turned(pose[2])
        # The cylinders as the robot sees them.
        centres = (self.centres - pose[:2]) @ turn
        for low, high, half in outline:
            nearest = np.clip(centres, [low, -half], [high, half])
            touching = np.hypot(*(centres - nearest).T) < self.radii
            if touching.any():
                return "mover" if self.velocities[touching].any() else "cylinder"
            corners = np.array([(low, -half), (low, half), (high, half), (high, -half)]) @ turn.T + pose[:2]
            if np.abs(corners).max() > self.side / 2:
                return "wall"
            for box in self.boxes:
                if _overlap(corners, box):
                    return "box"
        return None

    def _is_far(self, place: np.ndarray) -> bool:
        """Whether everything is farther away than the robot is long."""
        middles = self.boxes.mean(axis=1)
        boxes = np.hypot(*(middles - place).T) - np.hypot(*(self.boxes[:, 0] - middles).T)
        cylinders = np.hypot(*(self.centres - place).T) - self.radii
        walls = self.side / 2 - np.abs(place)
        return min(walls.min(), cylinders.min(), boxes.min(initial=np.inf)) > 0.3


def _turned(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _overlap(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two rectangles have no line between them."""
    for shape in (first, second):
        for axis in (shape[1] - shape[0], shape[2] - shape[1]):
            ours, others = first @ axis, second @ axis
            if ours.max() < others.min() or others.max() < ours.min():
                return False
    return True


class Adversary:
    """A policy that wants to collide: straight on, to the nearest thing, at random, or in circles; or to
    the goal."""

    KINDS = ("straight", "to the nearest", "random", "circles", "to the goal")

    def __init__(self, kind: str, random: np.random.Generator):
        self._kind, self._random, self._action, self._left = kind, random, 2, 0

    def reset(self) -> None:
        """Nothing is remembered."""

    def act(self, observation: np.ndarray) -> int:
        """Return the number of an action: 0 is the sharpest turn to the left."""
        self._left -= 1
        if self._kind == "to the nearest":
            beam = int(np.argmin(observation[:24]))
            bearing = math.remainder(2 * math.pi * beam / 24, 2 * math.pi)
        elif self._kind == "to the goal":
            bearing = float(observation[24])
        else:
            if self._left <= 0:
                self._left = int(self._random.integers(2, 15))
                self._action = int(self._random.integers(5))
            return {"straight": 2, "circles": 1}.get(self._kind, self._action)
        return int(np.clip(2 - round(bearing / 0.3), 0, 4))


@dataclasses.dataclass(frozen=True)
class Result:
    """How a drive went."""

    contact: str | None
    """What was touched, and a stop was possible."""
    bumped: bool
    """Whether something drove into the robot that a stop would not have kept from it."""
    way: float
    """Metres driven."""
    stops: int
    """Near-stops, and"""
    resumed: int
    """how many of them ended with the policy driving again."""
    end: str


def drive(make: Any, seed: int, seconds: float, robot: str = "burger") -> Result:
    """Drive through one world.

    A contact counts where a stop was physically possible: where the robot, had it stood since `POSSIBLE`
    seconds before, would not be touched by what it touches. What does not move is so always.

    Args:
        make: `make(policy, robot, zero_is_far)` is a driver.
    """
    random = np.random.default_rng(seed)
    outline, lidar = OUTLINES[robot]
    world = World.draw(random, 0.55)
    kind = Adversary.KINDS[seed % len(Adversary.KINDS)]
    driver = make(Adversary(kind, random), robot, world.side > 3 and bool(random.random() < 0.9))
    driver.set_goal(*(random.uniform(-0.4, 0.4, 2) * world.side))
    pose = np.array([0.0, 0.0, random.uniform(-math.pi, math.pi)])
    believed, speed, queue = pose.copy(), np.zeros(2), [np.zeros(2)] * DELAY
    wrong, dropouts = random.uniform(0.98, 1.02, 2), random.uniform(0, 0.03)
    backwards, before = bool(random.random() < 0.5), [pose.copy()]
    ranges, coming = np.zeros(360), None
    wheels, way, stops, resumed, standing = np.zeros(2), 0.0, 0, 0, False
    for tick in range(round(seconds / TICK)):
        now = 1.0 + tick * TICK
        queue.append(wheels)
        speed = speed + np.clip(
            queue.pop(0) - speed, -TICK * np.array([2.5, 8.0]), TICK * np.array([2.5, 8.0])
        )
        pose, believed = _driven(pose, speed), _driven(believed, speed * wrong)
        way += abs(speed[0]) * TICK
        world.move()
        before.append(pose)
        touched = world.touched(pose, outline)
        if touched is not None:
            possible = (
                world.touched(before[max(0, len(before) - 1 - round(POSSIBLE / TICK))], outline) is None
            )
            return Result(touched if possible else None, not possible, way, stops, resumed, driver.why)
        if coming is not None:
            driver.see_scan(coming, now)
        driver.see_odometry(_odometry(believed, now), now)
        if tick % 2 == 1:
            part = (tick // 2 + backwards) % 2
            taken = np.arange(180 * part, 180 * part + 180)
            origin = pose[:2] + lidar * np.array([math.cos(pose[2]), math.sin(pose[2])])
            ranges[taken] = _raw(world.cast(origin, pose[2] + np.radians(taken)), dropouts, random)
        coming = _scan(ranges, now) if tick % 4 == 3 else None
        if tick % 4 == 0:
            command = driver.decide(now)
            wheels = np.array([command.linear, command.angular])
            near = "too near" in driver.why
            stops += near and not standing
            resumed += standing and driver.why == "driving"
            standing = near
        elif not driver.watch(now):
            wheels = np.zeros(2)
        if driver.goal is None:
            if not driver.why.startswith("goal reached"):
                break
            driver.set_goal(*(random.uniform(-0.4, 0.4, 2) * world.side))
    return Result(None, False, way, stops, resumed, driver.why)


def _driven(pose: np.ndarray, speed: np.ndarray) -> np.ndarray:
    middle = pose[2] + speed[1] * TICK / 2
    return pose + TICK * np.array([speed[0] * math.cos(middle), speed[0] * math.sin(middle), speed[1]])


def _raw(true: np.ndarray, dropouts: float, random: np.random.Generator) -> np.ndarray:
    """What the driver publishes."""
    noise = np.clip(random.standard_normal(len(true)) / 2, -1, 1)
    raw = np.round(true + noise * np.where(true < 0.5, 0.015, 0.035 * true), 3)
    nothing = (true > 3.5) | (random.random(len(true)) < dropouts)
    nothing |= (true < 0.12) & (random.random() < 0.5)
    return np.where(nothing, 0.0, np.maximum(raw, 0.001)).astype(np.float32)


def _stamp(now: float) -> SimpleNamespace:
    return SimpleNamespace(sec=int(now), nanosec=round(now % 1 * 1e9))


def _scan(ranges: np.ndarray, now: float) -> SimpleNamespace:
    return SimpleNamespace(
        header=SimpleNamespace(stamp=_stamp(now), frame_id="base_scan"), ranges=ranges.copy(),
        angle_min=0.0, angle_increment=2 * math.pi / 360, range_min=0.12, range_max=3.5,
    )  # fmt: skip


def _odometry(pose: np.ndarray, now: float) -> SimpleNamespace:
    turn = SimpleNamespace(x=0.0, y=0.0, z=math.sin(pose[2] / 2), w=math.cos(pose[2] / 2))
    place = SimpleNamespace(position=SimpleNamespace(x=pose[0], y=pose[1], z=0.0), orientation=turn)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=_stamp(now), frame_id="odom"), pose=SimpleNamespace(pose=place)
    )


def driver_of(policy: Any, robot: str, zero_is_far: bool, stop_distance: float = 0.0) -> Any:
    """Make the exported driver."""
    from qhat.deploy.ros2 import task_of
    from qhat.runtime.qhat_robot.logic import ROBOTS, Driver, ScanReader, Task

    fields = task_of(
        {
            "environment": {"id": "TurtleBot3-v0", "options": {}},
            "control_period": None,
            "actions": {"start": [0]},
        }
    )
    task = Task(**{**fields, "turns": tuple(fields["turns"])})
    reader = ScanReader(task, 0.0, zero_is_far)
    return Driver(task, policy, reader, stop_distance=stop_distance, body=ROBOTS[robot])


def drives(make: Any, worlds: int, seconds: float) -> list[Result]:
    """Drive through worlds, of which every fourth has a Waffle."""
    return [drive(make, seed, seconds, "waffle" if seed % 4 == 3 else "burger") for seed in range(worlds)]


if __name__ == "__main__":
    import collections
    import sys
    import time

    began = time.process_time()
    results = drives(driver_of, int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 30.0)
    print(f"{len(results)} worlds, {time.process_time() - began:.0f} s of CPU")
    print("avoidable contacts", [(seed, one) for seed, one in enumerate(results) if one.contact])
    print("driven into", sum(one.bumped for one in results), "metres", sum(one.way for one in results))
    print("near-stops", sum(one.stops for one in results), "resumed", sum(one.resumed for one in results))
    print(collections.Counter(one.end.split(" (")[0].split(":")[0] for one in results))
