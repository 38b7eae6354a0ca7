"""Environments with one quirk each, which is supported or refused with a sentence.

A class is registered as `<its name>-v0`. `says` is empty where it can be learned from, and otherwise what
the one sentence has to hold beside the environment's id.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Sequence, Text, Tuple

PAIR = Box(-1, 1, (2,), np.float32)
ALLOWED = np.array([1, 0, 1], np.int8)


class Plain(gymnasium.Env):
    """Nothing odd; ten steps."""

    says: str = ""
    masks: str = ""
    observation_space: Any = PAIR
    action_space: Any = Discrete(3)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), self.info()

    def observe(self) -> Any:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def info(self) -> Any:
        return {}

    def paid(self) -> Any:
        return 1.0

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.time += 1
        return self.observe(), self.paid(), self.time >= 10, False, self.info()


class StartsAtOne(Plain):
    action_space = Discrete(3, start=1)


class Switches(Plain):
    action_space = MultiBinary((2, 2))


class Knobs(Plain):
    action_space = MultiDiscrete([3, 2], start=[-1, 5])


class Lever(Plain):
    action_space = Box(-2, 2, (), np.float32)


class Grid(Plain):
    action_space = Box(-1, 1, (2, 2), np.float64)


class WholeLevers(Plain):
    action_space = Box(0, 10, (2,), np.int32)


class Endless(Plain):
    says = "joint 0 takes actions from -inf to inf"
    action_space = Box(-np.inf, np.inf, (2,), np.float32)


class NamedActions(Plain):
    says = "expected Discrete, MultiDiscrete, MultiBinary or Box"
    action_space = Dict({"move": Discrete(3), "grip": Discrete(2)})


class TooMany(Plain):
    says = ": Action choices are (2000000,); expected at most 1,000,000: take a MultiDiscrete"
    action_space = Discrete(2_000_000)


class Bytes(Plain):
    observation_space = Box(0, 255, (8, 8, 3), np.uint8)

    def observe(self) -> Any:
        return self.np_random.integers(0, 256, (8, 8, 3), dtype=np.uint8)


class Flags(Plain):
    observation_space = Box(0, 1, (10,), np.bool_)  # pyright: ignore[reportArgumentType]

    def observe(self) -> Any:
        return self.np_random.random(10) > 0.5


class Wide(Plain):
    observation_space = Box(0, 2**30, (2,), np.int64)

    def observe(self) -> Any:
        return self.np_random.integers(2**25, 2**26, 2)


class Number(Plain):
    observation_space = Box(-1, 1, (), np.float32)

    def observe(self) -> Any:
        return np.float32(0.5)


class Place(Plain):
    observation_space = Discrete(5, start=-2)

    def observe(self) -> Any:
        return np.int64(self.np_random.integers(-2, 3))


class ManyStarts(Plain):
    """Starts anywhere, so that no two starts are alike."""

    observation_space: Any = Discrete(1_000)

    def observe(self) -> Any:
        self.place = self.place + 1 if self.time else int(self.np_random.integers(980))
        return self.place


class Uneven(Plain):
    observation_space = Dict({"clock": Box(0, 1e6, (1,)), "arm": PAIR, "gear": Discrete(3)})

    def observe(self) -> Any:
        return {"clock": np.array([9e5 + self.time], np.float32), "arm": super().observe(), "gear": 1}


class UnevenUnsaid(Uneven):
    """The same numbers, without bounds in the space."""

    observation_space = Dict({"clock": Box(-np.inf, np.inf, (1,)), "arm": PAIR, "gear": Discrete(3)})


class Pairs(Plain):
    observation_space = Tuple((Discrete(4), PAIR))

    def observe(self) -> Any:
        return 1, super().observe()


class Letters(Plain):
    says = "observations of Text,"
    observation_space = Text(5)

    def observe(self) -> Any:
        return "hello"


class LetterWithin(Plain):
    says = "wrap='drop:keys=mission'"
    observation_space = Dict({"mission": Text(5), "pose": PAIR})

    def observe(self) -> Any:
        return {"mission": "hello", "pose": super().observe()}


class Growing(Plain):
    says = "observations of Sequence,"
    observation_space = Sequence(PAIR)


class Net(Plain):
    says = "observations of Graph,"
    observation_space = Graph(PAIR, None)


class Nothing(Plain):
    says = "which hold no number"
    observation_space = Box(-1, 1, (0,), np.float32)

    def observe(self) -> Any:
        return np.zeros(0, np.float32)


class Listed(Plain):
    def observe(self) -> Any:
        return [0.1, 0.2]


class Beyond(Plain):
    def observe(self) -> Any:
        return np.array([5.0, -7.0], np.float32)


class Rewritten(Plain):
    """Returns the same array every time, and overwrites it."""

    def __init__(self):
        self.memory = np.zeros(2, np.float32)

    def observe(self) -> Any:
        self.memory[:] = self.time, self.np_random.random()
        return self.memory


class Larger(Plain):
    says = "gave an observation of shape (3,), where its space says (2,)"

    def observe(self) -> Any:
        return np.zeros(3, np.float32)


class FourValues(Plain):
    says = "has a step that"

    def step(self, action: Any) -> Any:
        self.time += 1
        return self.observe(), 1.0, self.time >= 10, {}


class ObservationAlone(Plain):
    says = "has a reset that"

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class Unseeded(Plain):
    says = "expected `def reset(self, *, seed=None, options=None)`"

    def reset(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().reset()


class NoInfo(Plain):
    says = "expected observation, reward, terminated, truncated, info"

    def step(self, action: Any) -> Any:
        return *super().step(action)[:4], None


class WholeFlags(Plain):
    def step(self, action: Any) -> Any:
        observation, _, over, _, info = super().step(action)
        return observation, 1, int(over), 0, info


class PaidInAList(Plain):
    says = "gave a reward of shape (1,), where one number is expected"

    def paid(self) -> Any:
        return np.array([1.0], np.float32)


class Unpaid(Plain):
    says = "gave the reward None, where one number is expected"

    def paid(self) -> Any:
        return None


class Rich(Plain):
    def paid(self) -> Any:
        return 1e6


class Sized(Plain):
    says = "needs size, which its constructor has no default for; expected env_kwargs={'size': ...}"

    def __init__(self, size: int, level: str = "easy"):
        self.observation_space = Box(-1, 1, (size,), np.float32)


class Drawn(Plain):
    says = "env_kwargs={'render_mode': 'rgb_array'}"

    def __init__(self, render_mode: Any = None):
        assert render_mode == "rgb_array", "render_mode has to be rgb_array"


class Shapeless(Plain):
    says = "action space does not inherit from"
    action_space = [0, 1, 2]  # noqa: RUF012


class Stranger:
    says = "The environment must inherit from the gymnasium.Env"
    observation_space, action_space = PAIR, Discrete(2)


class Masked(Plain):
    """Raises if an action is illegal."""

    masks = "info['action_mask']"

    def step(self, action: Any) -> Any:
        assert action != 1, "an action that the mask forbids"
        return super().step(action)

    def info(self) -> Any:
        return {"action_mask": ALLOWED}


class MaskedByAnotherName(Masked):
    masks = "info['action_masks']"

    def info(self) -> Any:
        return {"action_masks": ALLOWED.astype(bool)}


class MaskedByAMethod(Masked):
    masks = "action_masks()"

    def info(self) -> Any:
        return {}

    def action_masks(self) -> Any:
        return ALLOWED.tolist()


class MaskedInSight(Masked):
    masks = "obs['action_mask']"
    observation_space = Dict({"observation": PAIR, "action_mask": Box(0, 1, (3,), np.int8)})

    def observe(self) -> Any:
        return {"observation": super().observe(), "action_mask": ALLOWED.copy()}

    def info(self) -> Any:
        return {}


class MaskedAtTheEndByNothing(Masked):
    def info(self) -> Any:
        return {"action_mask": ALLOWED * (self.time < 10)}


class MaskedTooLate(Masked):
    says = "gave its first info['action_mask'] at step 1 of the run; expected one from its reset on"

    def step(self, action: Any) -> Any:
        return Plain.step(self, action)

    def info(self) -> Any:
        return {"action_mask": ALLOWED} if self.time else {}


class MaskedKnobs(Plain):
    """The masks of two factors in one array, as in sb3-contrib."""

    masks = "info['action_mask']"
    action_space = MultiDiscrete([3, 2])

    def info(self) -> Any:
        return {"action_mask": np.array([1, 0, 1, 0, 1])}

    def step(self, action: Any) -> Any:
        assert action[0] != 1
        assert action[1] == 1
        return super().step(action)


class MaskedInRows(Plain):
    """Two factors with as many choices, a row of the mask each, in the observation."""

    masks = "obs['action_mask']"
    action_space = MultiDiscrete([3, 3])
    observation_space = Dict(pose=PAIR, action_mask=Box(0, 1, (2, 3), np.int8))

    def step(self, action: Any) -> Any:
        assert 1 not in np.asarray(action), "an action that the mask forbids"
        return super().step(action)

    def observe(self) -> Any:
        return {"pose": super().observe(), "action_mask": np.stack([ALLOWED, ALLOWED])}


class Unmasked(Plain):
    """An entry with the name of a mask, whose space is not that of a mask."""

    observation_space = Dict(pose=PAIR, action_mask=Box(-np.inf, np.inf, (3,), np.float32))

    def observe(self) -> Any:
        return {"pose": super().observe(), "action_mask": ALLOWED.astype(np.float32)}


ALL: tuple[Any, ...] = tuple(
    kind for kind in list(globals().values()) if isinstance(kind, type) and hasattr(kind, "says")
)
for kind in ALL:
    gymnasium.register(f"{kind.__name__}-v0", kind, max_episode_steps=50)
