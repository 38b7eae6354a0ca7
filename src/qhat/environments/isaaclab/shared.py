"""One simulation that training and evaluations play in by turns: Isaac Sim has one in a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qhat.system.errors import require


class Simulation:
    """A simulation, and which part of it plays."""

    def __init__(self, env: Any, close: Callable[[], None] = lambda: None):
        """Take over a simulation.

        Args:
            env: has Isaac Lab's API.
            close: called when its last part is closed.
        """
        self.env: Any = getattr(env, "unwrapped", env)
        self.player: Part | None = None
        self.parts: list[Part] = []
        self._close = close

    def part(self, copies: int, env_id: str) -> Part:
        """Return a part of so many robots.

        Raises:
            UsageError: there are fewer.
        """
        robots = int(self.env.num_envs)
        require(
            copies <= robots,
            f"Environment '{env_id}' has one simulation of {robots:,} robots, and {copies:,} are asked for;"
            " expected episodes × seeds no more than that: fewer eval_episodes, or more num_envs.",
        )
        self.parts.append(Part(self, copies))
        return self.parts[-1]

    def leave(self, part: Part) -> None:
        """Close a part, and the simulation with the last one."""
        if part in self.parts:
            self.parts.remove(part)
            if not self.parts:
                self._close()


class Part:
    """The first robots of a simulation, with its API; the others get actions of 0 meanwhile.

    A reset makes it the part that plays. Others are interrupted then: their episodes are over.
    """

    def __init__(self, simulation: Simulation, copies: int):
        self._simulation, self.num_envs = simulation, copies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._simulation.env, name)

    @property
    def unwrapped(self) -> Part:
        """Itself: what is within has other robots too."""
        return self

    @property
    def interrupted(self) -> bool:
        """Whether another part has played in the meantime."""
        return self._simulation.player is not self

    def reset(self, *args: Any, **more: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the simulation."""
        self._simulation.player = self
        shown, extras = self._simulation.env.reset(*args, **more)
        return self._rows(shown), self._extras(extras)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step all robots; return what there is of the first ones."""
        env = self._simulation.env
        if self.num_envs < env.num_envs:
            whole = action.new_zeros((env.num_envs, *action.shape[1:]))
            whole[: self.num_envs] = action
            action = whole
        shown, reward, terminated, truncated, extras = env.step(action)
        rows = (self._rows(part) for part in (shown, reward, terminated, truncated))
        return (*rows, self._extras(extras, terminated | truncated))

    def close(self) -> None:
        """Leave the simulation."""
        self._simulation.leave(self)

    def _rows(self, part: Any) -> Any:
        if isinstance(part, Mapping):
            return {name: self._rows(one) for name, one in part.items()}
        return part[: self.num_envs]

    def _extras(self, extras: Mapping[str, Any], ended: Any = None) -> dict[str, Any]:
        """Return what is said of the first robots; the log, a mean over all, only where they are all."""
        more = dict(extras)
        if self.num_envs == self._simulation.env.num_envs:
            return more
        more.pop("log", None)
        final = more.get("final_obs")
        if final is not None and ended is not None:
            rows = len(next(iter(_leaves(final))))
            count = self.num_envs if rows == len(ended) else int(ended[: self.num_envs].sum())
            more["final_obs"] = _first(final, count)
        return more


def _leaves(part: Any) -> list[Any]:
    if isinstance(part, Mapping):
        return [leaf for one in part.values() for leaf in _leaves(one)]
    return [part]


def _first(part: Any, count: int) -> Any:
    if isinstance(part, Mapping):
        return {name: _first(one, count) for name, one in part.items()}
    return part[:count]
