"""EnvPool on the host loop: where it has no compiled step, or Python's is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qhat.axes.actions import BINS
from qhat.environments.base import Timestep
from qhat.environments.catalogue import Entry
from qhat.environments.envpool.task import Past, PoolTask
from qhat.environments.host import HostEnvironment
from qhat.environments.spaces import episode_seeds


class EnvPoolHost(HostEnvironment):
    """E environments for each seed, all in one pool: they step while the update runs."""

    is_async = True

    def __init__(
        self,
        entry: Entry,
        num_envs: int,
        seeds: Sequence[int],
        since: int,
        *,
        options: Mapping[str, object] | None = None,
        bins: Sequence[int] = BINS,
        picture: tuple[int, int] | None = None,
        log: Sequence[str] = (),
    ):
        self._task, self.logs = PoolTask.of(entry, options, bins, log), tuple(log)
        self.num_envs, self.seeds = num_envs, len(seeds)
        numbers = [number for seed in seeds for number in episode_seeds(int(seed), since, num_envs)]
        self._pool = self._task.make(numbers, picture)
        self._observations, self.spec = self._task.spaces(self._pool)
        self._past = self._nothing = Past.nothing((len(numbers),), np)

    def start(self) -> np.ndarray:
        observation, _ = self._pool.reset()
        self._past = self._nothing
        return self._share(self._observations.read(observation))

    def send(self, action: np.ndarray) -> None:
        choice = action.reshape(-1, action.shape[-1])
        self._pool.send(self._task.command(self.spec.actions, choice, np))

    def receive(self) -> Timestep:
        observed, reward, terminated, truncated, info = self._pool.recv()
        observation = self._observations.read(observed)
        said = (reward, terminated, truncated, info)
        observation, rows, self._past = self._task.rows(
            self._past, observation, *said, np, self._observations
        )
        observation = self._share(observation)
        fields = {name: self._share(part) for name, part in rows._asdict().items() if part is not None}
        return Timestep(observation=observation, successor=observation, **fields)

    def draw(self) -> np.ndarray:
        """Return what the first environment looks like, `[height, width, 3]`; made with `picture`."""
        # The first camera of dm_control's tasks follows the robot; others have theirs on the robot.
        follows = type(self._pool).__name__.startswith("Dmc")
        return np.asarray(self._pool.render(camera_id=0 if follows else None))[0]

    def close(self) -> None:
        self._pool.close()

    def _share(self, rows: np.ndarray) -> np.ndarray:
        """`[S·E, ...] → [S, E, ...]`."""
        return rows.reshape(self.seeds, self.num_envs, *rows.shape[1:])
