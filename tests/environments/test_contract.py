"""The boundary contract, for every adapter, autoreset mode and n: what a learner sees is what happened.

Protects against successors of another episode, reset rows learned as transitions, steps lost or seen twice,
a time limit taken for an end, and an environment that overwrites its own last observation. With QHAT_FULL=1
(`make test-full`) every adapter meets every n and number of copies in every test, otherwise some.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from full import FULL
from qhat import recipes
from qhat.axes.explore import EpsilonGreedy
from qhat.axes.sampler import Prioritised, Sampler, Uniform
from qhat.axes.target import Soft
from qhat.engine.host import HostLoop
from qhat.engine.iteration import Program
from qhat.engine.loop import Loop
from qhat.engine.replay import ring as replay
from qhat.engine.replay.nstep import NOTHING
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.environments.spaces import episode_seeds
from scripted import Circle, ScriptedCompiled, ScriptedCopy, ScriptedGym, fate

GAMMA = 0.9
SEED = 3
MODES = [(kind, mode) for kind in ("sync", "async") for mode in AutoresetMode]
OURS, NEXT, DISABLED = ("ours", "sync"), ("sync", AutoresetMode.NEXT_STEP), ("sync", AutoresetMode.DISABLED)
COMPILED = [("compiled", False), ("compiled", True)]
ADAPTERS = [OURS, ("ours", "async"), *MODES, *COMPILED]
SOME = [(OURS, 1), *((one, 7) for one in (OURS, ("ours", "async"), *MODES[:3], *COMPILED))]
RECIPE = dataclasses.replace(
    recipes.get("dqn"), hidden=(8,), replay_capacity=4_200, learning_starts=100, batch_size=16, gamma=GAMMA,
    explore=EpsilonGreedy(1.0, 0.5, 400),
)  # fmt: skip


def vector(kind: str, mode: Any, build: Any, count: int) -> Any:
    """A vector environment as a user would make it: nothing of qhat's around the environments."""
    numbers = episode_seeds(SEED, 0, count)
    if kind == "sync":
        made: Any = SyncVectorEnv([build] * count, autoreset_mode=mode)
    else:
        made = AsyncVectorEnv([build] * count, autoreset_mode=mode, context="forkserver")
    return GymnasiumEnvironment("scripted", made, numbers)


def adapt(adapter: tuple[str, Any], build: Any, count: int) -> Any:
    kind, mode = adapter
    if kind == "ours":
        return GymnasiumEnvironment.of("scripted", build, count, (SEED,), vector=mode)
    return vector(kind, mode, build, count)


def played(adapter: Any, num_envs: int, iterations: int, recipe: Any) -> tuple[Any, Any, int]:
    """Train in the scripted environment: the seed's last state, its log, and its real steps."""
    kind, mode = adapter
    recipe = dataclasses.replace(recipe, num_envs=num_envs, replay_ratio=1 / num_envs)
    if kind == "compiled":
        environment: Any = ScriptedCompiled(num_envs, next_step=mode)
        loop: Any = Loop(Program.of(recipe, (3,), "float32", environment.spec.actions), environment)
    else:
        lost = (kind, mode) == ("async", AutoresetMode.SAME_STEP)
        environment = adapt((kind, mode), ScriptedCopy if lost else ScriptedGym, num_envs)
        spec = environment.spec
        loop = HostLoop(Program.of(recipe, spec.shape, spec.dtype, spec.actions), environment)
    state = loop.init(jax.random.split(jax.random.key(0), 1))
    state, log = loop.compile(iterations)(state, iterations)
    if kind != "compiled":
        environment.close()
    resets = mode in (True, AutoresetMode.NEXT_STEP)
    ended = int(np.asarray(log.ended).sum())
    last = int(np.asarray(log.ended)[0, -1].sum())
    real = iterations * num_envs - (ended - last if resets else 0)
    return jax.tree.map(lambda leaf: leaf[0], state.seeds), log, real


@dataclasses.dataclass(frozen=True)
class These(Sampler):
    """Draws the slots that are its state, each once."""

    name: ClassVar[str] = "these"

    def init(self, capacity: int) -> Any:
        raise NotImplementedError

    def store(self, state: Any, slots: Any, starts: Any) -> Any:
        raise NotImplementedError

    def draw(self, state: Any, key: Any, batch: int, filled: Any, rows: int) -> Any:
        return state, jnp.ones(batch)

    def weights(self, relative: Any, step: Any) -> Any:
        return jnp.where(jnp.isfinite(relative), 1.0, 0.0)

    def update(self, state: Any, slots: Any, error: Any) -> Any:
        raise NotImplementedError


def oracle(starts: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plain: n-step returns `[M]`, discounts `[M]` and successors `[M, 3]` of starts `[M, 3]`."""
    number, episode, time = starts.T.copy()
    total, discount, lasts = np.zeros(len(starts)), np.ones(len(starts)), np.ones(len(starts), bool)
    for power in range(n):
        reward, terminated, truncated = fate(number, episode, time)
        total[lasts] += GAMMA**power * reward[lasts]
        discount[lasts] = np.where(terminated, 0.0, GAMMA ** (power + 1))[lasts]
        time[lasts] += 1
        lasts &= ~(terminated | truncated)
    return total, discount, np.stack([number, episode, time], axis=1)


@functools.partial(jax.jit, static_argnums=2)
def complete(ring: Any, slots: Any, n: int) -> Any:
    return replay.view(ring, slots, n, GAMMA).complete


@functools.partial(jax.jit, static_argnums=2)
def sampled(ring: Any, slots: Any, n: int) -> Any:
    key, step = jax.random.key(0), jnp.int32(0)
    return replay.sample(ring, These(), slots, key, step, batch=len(slots), n=n, gamma=GAMMA)


def everything(ring: Any, starts: np.ndarray, n: int) -> tuple[np.ndarray, Any]:
    """Which starts have a whole window, and their transitions as NumPy arrays, each once."""
    # As many slots as the ring has, whatever it holds, so that one program serves all adapters.
    slots = np.resize(starts, len(ring.kind))
    usable = np.asarray(complete(ring, slots, n))[: len(starts)]
    count, slots = int(usable.sum()), np.resize(starts[usable], len(ring.kind))
    batch, drawn, weights = sampled(ring, slots, n)
    np.testing.assert_array_equal(drawn, slots)
    assert (np.asarray(weights) == 1).all()
    return usable, jax.tree.map(lambda leaf: np.asarray(leaf)[:count], batch)


def assert_agrees(batch: Any, n: int) -> None:
    """The transitions of the batch are what the script says of their observations."""
    reward, discount, successor = oracle(batch.observation.astype(int), n)
    np.testing.assert_allclose(batch.reward, reward, rtol=0, atol=1e-6)
    np.testing.assert_allclose(batch.discount, discount, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(batch.successor.astype(int), successor)


@pytest.mark.parametrize(
    ("adapter", "num_envs"),
    [(one, count) for one in ADAPTERS for count in (1, 7) if FULL or (one, count) in SOME],
    ids=str,
)
def test_every_step_is_one_sample_and_the_true_one(adapter: Any, num_envs: int) -> None:
    seed, log, real = played(adapter, num_envs, 280, RECIPE)
    ring = seed.ring
    starts = np.flatnonzero(np.asarray(ring.kind) != NOTHING)
    assert len(starts) == real, "every real step is stored once"
    assert np.asarray(log.ended).sum() > 20 * num_envs, "and many episodes ended"
    observations = np.asarray(ring.observation)[starts].astype(int)
    assert len(np.unique(observations, axis=0)) == real, "none twice"
    for n in (1, 3, 5):
        usable, batch = everything(ring, starts, n)
        # A window is open only at the ring's newest rows, in an episode that goes on.
        assert (~usable).sum() <= (n - 1) * num_envs
        np.testing.assert_array_equal(batch.observation.astype(int), observations[usable])
        assert_agrees(batch, n)


@pytest.mark.parametrize("adapter", ADAPTERS if FULL else [NEXT, COMPILED[1]], ids=str)
def test_what_is_sampled_is_true_also_after_the_ring_has_turned(adapter: Any) -> None:
    recipe = dataclasses.replace(RECIPE, sampler=Prioritised(), replay_capacity=7 * 60, n_step=3)
    seed, _, _ = played(adapter, 7, 280, recipe)
    assert (np.asarray(seed.ring.filled) == 60).all(), "the ring has turned"
    for sampler, state in ((recipe.sampler, seed.sampler), (Uniform(), ())):
        batch, _, weights = jax.jit(
            lambda state, sampler=sampler: replay.sample(
                seed.ring, sampler, state, jax.random.key(1), jnp.int32(0), batch=300, n=3, gamma=GAMMA
            )
        )(state)
        assert (np.asarray(weights) > 0).all()
        assert batch.reward.shape == (300,)
        assert_agrees(jax.tree.map(np.asarray, batch), 3)


@pytest.mark.parametrize("next_step", [False, True] if FULL else [True])
def test_no_transition_crosses_episodes_in_a_million_steps(next_step: bool) -> None:
    copies, turns = 250, 4_000
    recipe = dataclasses.replace(
        RECIPE, num_envs=copies, replay_ratio=1 / copies, replay_capacity=copies * 5_400,
        learning_starts=2_000_000,
    )  # fmt: skip
    environment = ScriptedCompiled(copies, next_step=next_step)
    loop = Loop(Program.of(recipe, (3,), "float32", environment.spec.actions), environment)
    state, log = loop.compile(turns)(loop.init(jax.random.split(jax.random.key(0), 1)), turns)
    ring = jax.tree.map(lambda leaf: leaf[0], state.seeds.ring)
    starts = np.flatnonzero(np.asarray(ring.kind) != NOTHING)
    assert int(np.asarray(ring.filled).max()) < ring.rows, "all of them are still there"
    ended = int(np.asarray(log.ended).sum())
    assert len(starts) >= turns * copies - (ended if next_step else 0)
    for n in (1, 3, 5):
        _, batch = everything(ring, starts, n)
        before, after = batch.observation, batch.successor
        np.testing.assert_array_equal(before[:, :2], after[:, :2])
        assert (after[:, 2] > before[:, 2]).all()
        assert (after[:, 2] <= before[:, 2] + n).all()


VALUES = [(one, n) for one in ADAPTERS if one not in COMPILED for n in (1, 3)]


@pytest.mark.parametrize(
    ("adapter", "n_step"), VALUES if FULL else [(OURS, 3), (NEXT, 1), (DISABLED, 3)], ids=str
)
def test_values_at_a_time_limit_are_the_pencils(adapter: Any, n_step: int) -> None:
    circle = adapt(adapter, Circle, 2)
    gamma = 0.5
    recipe = dataclasses.replace(
        RECIPE, hidden=(32,), num_envs=2, replay_ratio=1.0, gamma=gamma, n_step=n_step, target=Soft(0.05),
        learning_rate=1e-2, learning_rate_end=1e-4, learning_rate_steps=1_600, batch_size=32,
    )  # fmt: skip
    spec = circle.spec
    loop = HostLoop(Program.of(recipe, spec.shape, spec.dtype, spec.actions), circle)
    state, _ = loop.compile(1_000)(loop.init(jax.random.split(jax.random.key(0), 1)), 1_000)
    circle.close()
    online = jax.tree.map(lambda leaf: leaf[0], state.seeds.learner.online)
    values = jax.jit(jax.vmap(loop.program.learner.q_values, in_axes=(None, 0)))(online, jnp.eye(3))
    np.testing.assert_allclose(
        np.asarray(values).reshape(3, 2), np.tile(Circle.values(gamma)[:, None], 2), atol=1e-2
    )
