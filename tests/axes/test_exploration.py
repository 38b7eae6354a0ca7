"""Protects exploration.

Other projects shipped an ε that decays per gradient update and so reaches its floor immediately,
schedules that always return their end value, and seeds that all explore alike.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from qhat.axes.actions import MOST, Actions
from qhat.axes.explore import EpsilonGreedy, NoExploration, chooses_one
from qhat.engine.iteration import Program
from qhat.engine.state import Clock
from qhat.environments.base import Timestep
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

GREEDY = -1
"""Stands for the greedy action, so that whatever is executed instead can be told."""

# Most of the time here is compilation.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def run(explore: EpsilonGreedy, actions: Actions, num_envs: int, steps: int, seed: int = 0) -> np.ndarray:
    """Executed actions `[steps, E, F]`, with the schedule at its end."""
    greedy = jnp.full((num_envs, actions.factors), GREEDY, jnp.int32)

    @quick_jit
    def scan(key: jax.Array) -> jax.Array:
        def body(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            return explore.choose(state, greedy, key, jnp.int32(10**6), actions)

        return jax.lax.scan(body, explore.init(num_envs, actions), jax.random.split(key, steps))[1]

    return np.asarray(scan(jax.random.key(seed)))


def runs_of(line: np.ndarray) -> list[tuple[int, int]]:
    """(action, length) of every run of equal actions."""
    edges = np.flatnonzero(np.diff(line)) + 1
    return [(int(part[0]), len(part)) for part in np.split(line, edges)]


@pytest.mark.parametrize("explore", [EpsilonGreedy(1.0, 0.1, 1000), EpsilonGreedy(0.2, 0.8, 1000)])
def test_epsilon_is_a_line_over_environment_steps(explore: EpsilonGreedy):
    steps = np.array([0, 1, 250, 500, 999, 1000, 1001, 10**6, 2**31 - 1])
    expected = explore.start + np.minimum(steps / 1000, 1) * (explore.end - explore.start)
    epsilon = jax.vmap(explore.epsilon)(jnp.asarray(steps, jnp.int32))
    np.testing.assert_allclose(epsilon, expected, rtol=1e-5)


@pytest.mark.parametrize(("fraction", "steps"), [(0.1, 2_000), (0.25, 5_000), (0.0, 0), (1.0, 20_000)])
def test_epsilon_falls_over_a_fraction_of_the_run(fraction: float, steps: int):
    scheduled = EpsilonGreedy(fraction=fraction).scheduled(20_000)
    assert scheduled == EpsilonGreedy(steps=steps) == scheduled.scheduled(7)
    assert EpsilonGreedy(steps=70, fraction=0.5).scheduled(20_000).steps == 70
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match=r"epsilon:fraction is .*expected a share of the run"):
            EpsilonGreedy(fraction=wrong).validate()


def test_a_schedule_of_no_steps_starts_at_its_end():
    np.testing.assert_allclose(EpsilonGreedy(1.0, 0.3, 0).epsilon(jnp.int32(0)), 0.3, rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class Recording(EpsilonGreedy):
    """Remembers the step that it was last asked at."""

    name: ClassVar[str] = "recording"

    def init(self, num_envs, actions):
        return jnp.int32(-1)

    def choose(self, state, greedy, key, step, actions, legal=None):
        return jnp.asarray(step, jnp.int32), greedy


def steps_asked(num_envs: int, replay_ratio: float) -> list[int]:
    """The steps at which a training run of 12 iterations asks the schedule."""
    recipe = Recipe(
        explore=Recording(),
        hidden=(),
        num_envs=num_envs,
        replay_ratio=replay_ratio,
        replay_capacity=64,
        learning_starts=0,
        batch_size=2,
    ).validate()
    program = Program.of(recipe, (2,), "float32", Actions((2,)))
    observation = jnp.ones((num_envs, 2))
    no = jnp.zeros(num_envs, bool)
    timestep = Timestep(observation, jnp.ones(num_envs), no, no, observation, ~no)
    key = jax.random.PRNGKey(0)
    shapes = jax.eval_shape(lambda: program.init(key, observation, None))
    seed = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    @quick_jit
    def iterate(clock: Clock) -> tuple[Clock, jax.Array]:
        after, _ = program.iterate(clock, seed, timestep, {"learn": key, "act": key})
        return program.tick(clock), after.exploration

    clock, asked = Clock(jnp.int32(0), jnp.int32(0)), []
    for _ in range(12):
        clock, step = iterate(clock)
        asked.append(int(step))
    assert int(clock.updates) > 0
    return asked


def test_the_schedule_counts_environment_steps_and_never_updates():
    rare, often = steps_asked(4, 0.125), steps_asked(4, 4.0)
    assert rare == often
    assert set(np.diff(rare).tolist()) == {4}


@pytest.mark.parametrize("hold", [1, 5])
@pytest.mark.parametrize("epsilon", [0.05, 0.3, 0.8])
def test_the_share_of_exploring_steps_is_epsilon(epsilon: float, hold: int):
    explore = EpsilonGreedy(1.0, epsilon, 10, hold)
    executed = run(explore, Actions((10,)), num_envs=2000, steps=300)[100:]
    share = np.mean(executed != GREEDY)
    per_env = np.mean(executed != GREEDY, axis=(0, 2))
    assert abs(share - epsilon) < 4 * per_env.std() / np.sqrt(per_env.size) + 1e-4


@pytest.mark.parametrize("hold", [1, 3])
@pytest.mark.parametrize(("epsilon", "explores"), [(0.0, False), (1.0, True)])
def test_the_extremes_are_exact(hold: int, epsilon: float, explores: bool):
    executed = run(EpsilonGreedy(1.0, epsilon, 10, hold), Actions((3,)), num_envs=100, steps=200)
    assert np.all((executed != GREEDY) == explores)


@pytest.mark.parametrize("hold", [2, 5])
def test_an_exploratory_action_is_repeated(hold: int):
    # Of so many choices no two draws are the same, so every run is one exploration.
    executed = run(EpsilonGreedy(1.0, 0.5, 10, hold), Actions((MOST,)), num_envs=50, steps=200)
    explored = 0
    for env in range(50):
        *whole, _ = runs_of(executed[:, env, 0])
        lengths = [length for action, length in whole if action != GREEDY]
        assert set(lengths) == {hold}
        explored += len(lengths)
    assert explored > 500


@pytest.mark.parametrize("hold", [1, 4])
@pytest.mark.parametrize("per_factor", [False, True])
def test_factors_explore_together_or_separately(hold: int, per_factor: bool):
    """Together: all factors explore or none. Separately: each explores with probability ε."""
    explore = EpsilonGreedy(1.0, 0.2, 10, hold, per_factor)
    explored = run(explore, Actions((MOST // 3,) * 3), num_envs=2_000, steps=300)[100:] != GREEDY
    share = explored.mean(axis=(0, 1))
    bound = 4 * explored.mean(axis=0).std(axis=0) / np.sqrt(2_000) + 1e-4
    assert np.all(np.abs(share - 0.2) < bound)
    together = (explored[..., 0] & explored[..., 1]).mean()
    assert together == pytest.approx(0.2**2 if per_factor else share[0], abs=0.003)


@pytest.mark.parametrize("hold", [2, 5])
def test_factors_that_explore_separately_repeat_separately(hold: int):
    explore = EpsilonGreedy(1.0, 0.3, 10, hold, per_factor=True)
    executed = run(explore, Actions((MOST // 2,) * 2), num_envs=50, steps=200)
    for env in range(50):
        for factor in range(2):
            *whole, _ = runs_of(executed[:, env, factor])
            assert {length for action, length in whole if action != GREEDY} == {hold}


@pytest.mark.parametrize("hold", [1, 4])
@pytest.mark.parametrize("per_factor", [False, True])
def test_every_choice_of_every_factor_is_equally_likely(hold: int, per_factor: bool):
    actions = Actions((2, 5, 3))
    explore = EpsilonGreedy(1.0, 1.0, 0, hold, per_factor)
    executed = run(explore, actions, num_envs=500, steps=80)[::hold]
    for factor, choices in enumerate(actions.choices):
        counts = np.bincount(executed[..., factor].ravel())
        assert counts.size == choices
        assert stats.chisquare(counts).pvalue > 1e-3
    pairs = executed[..., 0] * 5 + executed[..., 1]
    assert stats.chisquare(np.bincount(pairs.ravel(), minlength=10)).pvalue > 1e-3


@pytest.mark.parametrize("hold", [1, 3])
def test_environments_and_seeds_explore_differently(hold: int):
    explore, actions = EpsilonGreedy(1.0, 0.5, 10, hold), Actions((100,))
    first, again = (run(explore, actions, 8, 60, seed=0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = run(explore, actions, 8, 60, seed=1)
    lines = np.concatenate([first, other], axis=1)[..., 0].T
    assert len(np.unique(lines, axis=0)) == 16
    begins = lines != GREEDY
    assert len(np.unique(begins, axis=0)) == 16, "they begin to explore at different times too"


def test_seeds_of_one_training_run_differ():
    recipe = Recipe(hidden=(), num_envs=32, replay_capacity=320)
    program = Program.of(recipe, (2,), "float32", Actions((10,)))
    observation = jnp.ones((32, 2))
    keys = jax.random.split(jax.random.key(0), 3)
    seeds = quick_jit(jax.vmap(lambda key: program.init(key, observation, None)))(keys)
    for leaf in (seeds.action, *jax.tree.leaves(seeds.learner.online)):
        assert len(np.unique(np.asarray(leaf).reshape(3, -1), axis=0)) == 3


def test_older_recipes_are_read_with_their_old_field():
    recipe = Recipe(explore=EpsilonGreedy(1.0, 0.3, 10, per_factor=True))
    written = recipe.to_json()
    old = {("apart" if name == "per_factor" else name): it for name, it in written["explore"].items()}
    assert Recipe.from_json({**written, "explore": old}) == recipe


def test_the_exploration_of_several_actors_falls_to_the_rungs_of_a_ladder():
    """Horgan et al. 2018: ε_i = 0.4^(1 + 7i/(N − 1)); few actors need the recipe's fall to it."""
    recipe = EpsilonGreedy(end=0.1, steps=1_000)
    assert recipe.for_actor(0, 1) == recipe
    for actor, end in ((0, 0.4), (1, 0.4**4.5), (2, 0.4**8)):
        explore = recipe.for_actor(actor, 3)
        assert float(explore.epsilon(jnp.int32(0))) == 1.0
        assert float(explore.epsilon(jnp.int32(500))) == pytest.approx((1.0 + end) / 2)
        assert float(explore.epsilon(jnp.int32(5_000))) == pytest.approx(end, rel=1e-4)
    constant = NoExploration().for_actor(2, 3)
    assert float(constant.epsilon(jnp.int32(0))) == pytest.approx(0.4**8)
    steady = EpsilonGreedy(0.1, 0.1, steps=1_000)
    risen = [float(steady.for_actor(0, 3).epsilon(jnp.int32(step))) for step in (0, 500, 1_000)]
    assert risen == pytest.approx([0.4, 0.4, 0.4]), "it does not rise on the way"


def test_what_a_derived_class_decides_holds_for_one_environment_too():
    @dataclasses.dataclass(frozen=True)
    class First(EpsilonGreedy):
        name: ClassVar[str] = "first"

        def decide(
            self, state: Any, greedy: Any, bits: Any, step: Any, actions: Actions, legal: Any, xp: Any
        ) -> tuple[Any, Any]:
            return state, xp.zeros_like(greedy)

    assert chooses_one(EpsilonGreedy())
    assert not chooses_one(First())
