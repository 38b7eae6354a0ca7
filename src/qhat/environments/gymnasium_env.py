"""Adapter for Gymnasium: any environment of the field, on the host loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from qhat.environments.base import Spec
from qhat.environments.host import HostEnvironment, HostStep
from qhat.environments.spaces import ActionCoding, Observations, episode_seeds
from qhat.errors import QhatError


class GymnasiumEnvironment(HostEnvironment):
    """E copies of a Gymnasium environment for each seed, one after the other in this process."""

    def __init__(
        self,
        env_id: str,
        build: Callable[[], gymnasium.Env],
        num_envs: int,
        seeds: Sequence[int],
        since: int,
        reference: str | None,
        *,
        stack: int = 1,
    ):
        self.num_envs, self.seeds = num_envs, len(seeds)
        self._numbers = [number for seed in seeds for number in episode_seeds(int(seed), since, num_envs)]
        # A reset in the same step: no row is lost, and the true last observation comes beside it.
        self._envs = gymnasium.vector.SyncVectorEnv(
            [build] * len(self._numbers), autoreset_mode=AutoresetMode.SAME_STEP
        )
        self._observations = Observations.of(self._envs.single_observation_space, env_id)
        self._coding = ActionCoding.of(self._envs.single_action_space, env_id)
        self._steps = 0
        self.spec = Spec(
            id=env_id,
            backend="gym",
            shape=self._observations.shape,
            dtype=self._observations.dtype,
            actions=self._coding.actions,
            reference=reference,
            stack=stack,
        )

    def start(self) -> np.ndarray:
        observation, _ = self._envs.reset(seed=[*self._numbers])
        return self._share(self._observations.read(observation))

    def send(self, action: np.ndarray) -> None:
        self._action = self._coding.write(action.reshape(-1, action.shape[-1]))

    def receive(self) -> HostStep:
        self._steps += 1
        try:
            observed, reward, terminated, truncated, info = self._envs.step(self._action)
        except Exception as error:
            raise QhatError(
                f"Environment '{self.spec.id}' raised at step {self._steps:,} of the run"
                f" ({type(error).__name__}: {error}); action {self._action.tolist()}."
            ) from error
        observation = self._observations.read(observed)
        successor = self._last(observation, info)
        self._require_numbers(successor, reward)
        ended = terminated | truncated
        return HostStep(
            observation=self._share(observation),
            successor=self._share(successor),
            reward=self._share(np.asarray(reward, np.float32)),
            terminated=self._share(terminated),
            truncated=self._share(truncated & ~terminated),
            real=self._share(np.ones(ended.shape, bool)),
        )

    def close(self) -> None:
        self._envs.close()

    def _last(self, observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """The true successors: where an episode ended, its own last observation."""
        if "final_obs" not in info:
            return observation
        successor = observation.copy()
        for index in np.flatnonzero(info["_final_obs"]):
            final = info["final_obs"][index]
            space = self._envs.single_observation_space
            one = gymnasium.vector.utils.create_empty_array(space, 1)
            one = gymnasium.vector.utils.concatenate(space, [final], one)
            successor[index] = self._observations.read(one)[0]
        return successor

    def _require_numbers(self, successor: np.ndarray, reward: np.ndarray) -> None:
        for name, value in (("reward", reward), ("observation", successor)):
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                at = int(np.argwhere(~np.isfinite(value))[0][0])
                raise QhatError(
                    f"Environment '{self.spec.id}' gave {name} {value[at].tolist()} at step {self._steps:,}"
                    f" of the run; expected finite numbers. Action: {self._action[at].tolist()}."
                )

    def _share(self, rows: np.ndarray) -> np.ndarray:
        """`[S·E, ...] → [S, E, ...]`."""
        return rows.reshape(self.seeds, self.num_envs, *rows.shape[1:])
