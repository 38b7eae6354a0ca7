"""Atari's games through Gymnasium (ale-py): frames as the field's experiments see them.

Mnih et al. 2015, methods; Machado et al. 2018 (arXiv:1709.06009), whose sticky actions are ale-py's own
default. A frame is the pixel-wise maximum of the last two screens of an action, in grey, averaged over
areas down to 84 × 84.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import FrameStackObservation

from qhat.environments.extras import load

NAMESPACE = "ALE/"
SIZE, STACK, SKIP, NO_OPS = 84, 4, 4, 30


def make(name: str, **options: Any) -> gymnasium.Env:
    """Do as `gymnasium.make`; an id that begins with `ALE/` becomes stacks of frames.

    Raises:
        UsageError: ale-py cannot be imported.
    """
    if not name.startswith(NAMESPACE):
        return gymnasium.make(name, **options)
    gymnasium.register_envs(load("ale_py", name))
    # The emulator shows every screen: an action's last two are in what is seen.
    screens = gymnasium.make(name, **{**options, "obs_type": "grayscale", "frameskip": 1})
    return FrameStackObservation(Frames(screens), STACK)


def stack_of(env: gymnasium.Env) -> int:
    """Return how many frames an observation is made of: more than 1 where the outermost wrapper stacks."""
    if not isinstance(env, FrameStackObservation):
        return 1
    frame = env.env.observation_space
    return env.stack_size if isinstance(frame, gymnasium.spaces.Box) and frame.shape else 1


class Frames(gymnasium.Wrapper):
    """Skips frames, and begins a game with a random number of no-ops; `[84, 84]` of uint8."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        screen, info = self.env.reset(seed=seed, options=options)
        # Drawn from the generator that the seed began.
        for _ in range(int(self.env.unwrapped.np_random.integers(1, NO_OPS + 1))):
            screen, _, terminated, truncated, info = self.env.step(0)
            if terminated or truncated:
                screen, info = self.env.reset(options=options)
        return _shrink(screen), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        total, screens = 0.0, []
        terminated = truncated = False
        info: dict[str, Any] = {}
        for _ in range(SKIP):
            screen, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            screens = [*screens[-1:], screen]
            if terminated or truncated:
                break
        return _shrink(np.maximum(screens[0], screens[-1])), total, terminated, truncated, info


def _shrink(screen: np.ndarray) -> np.ndarray:
    """Average over areas, down to `[84, 84]`."""
    rows = _averages(screen.astype(np.float64))
    return np.rint(_averages(rows.T).T).astype(np.uint8)


def _averages(lines: np.ndarray) -> np.ndarray:
    """Average `[N, ...]` over 84 equal parts of the first axis, pixels at their borders by shares."""
    size = lines.shape[0]
    # The sum up to every border is one look-up; a product with a matrix waits for BLAS's threads.
    upto = np.concatenate([np.zeros((1, *lines.shape[1:])), np.cumsum(lines, axis=0)])
    border = np.arange(SIZE + 1) * size / SIZE
    whole = np.minimum(border.astype(int), size - 1)
    part = (border - whole)[:, None]
    return np.diff(upto[whole] * (1 - part) + upto[whole + 1] * part, axis=0) * SIZE / size
