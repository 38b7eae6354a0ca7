"""The partially observed tasks of tests and benchmarks: rules, rewards, and what they show.

Protects against a task that shows its answer, that no memory can solve, or that is not the one cited.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memory_tasks import PositionOnlyCartPole, RepeatPrevious

GAMES = 400


def deal(task: RepeatPrevious, policy: Callable[[Any], Any]) -> tuple[np.ndarray, np.ndarray]:
    """Play whole games; return rewards `[games, steps]` and the observations before each action."""

    def game(key: Any) -> tuple[Any, Any]:
        state, shown = task.reset(key)
        history = jnp.full(task.k, -1, jnp.int32).at[-1].set(shown.argmax())

        def step(carry: Any, key: Any) -> Any:
            state, history = carry
            state, after, reward, over = task.step(state, policy((history, key)), key)
            return (state, jnp.append(history[1:], after.argmax())), (reward, over, history)

        return jax.lax.scan(step, (state, history), jax.random.split(key, task.cards - 1))[1]

    rewards, over, history = jax.jit(jax.vmap(game))(jax.random.split(jax.random.key(0), GAMES))
    assert np.asarray(over).argmax(1).tolist() == [task.cards - 2] * GAMES, "the last card is not asked"
    return np.asarray(rewards), np.asarray(history)


@pytest.mark.parametrize("task", [RepeatPrevious(), RepeatPrevious(decks=2, k=32)])
def test_repeat_previous_brings_1_to_who_remembers_and_less_than_nothing_to_a_guess(task: RepeatPrevious):
    right, _ = deal(task, lambda given: given[0][0])
    np.testing.assert_allclose(right.sum(1), 1.0, atol=1e-5)
    assert (right[:, : task.k - 1] == 0).all(), "nothing is asked before k cards are dealt"
    guessed, _ = deal(task, lambda given: jax.random.randint(given[1], (), 0, 4))
    assert guessed.sum(1).mean() == pytest.approx(-0.5, abs=0.03)
    now, _ = deal(task, lambda given: given[0][-1])
    assert now.sum(1).mean() < -0.45, "the card that is shown does not help"


def test_repeat_previous_deals_whole_decks():
    _, history = deal(RepeatPrevious(), lambda given: given[0][0])
    counts = np.apply_along_axis(np.bincount, 1, history[..., -1], minlength=4)
    assert (counts >= 12).all(), "13 of each suit, but the last card"
    assert (counts.sum(1) == 51).all()


def test_position_only_cartpole_is_cartpole_without_velocities():
    task = PositionOnlyCartPole()
    real: Any = gymnasium.make("CartPole-v1").unwrapped
    state, shown = task.reset(jax.random.key(3))
    real.reset(seed=0)
    real.state = [float(part) for part in (state.x, state.x_dot, state.theta, state.theta_dot)]
    over, steps = False, 0
    while not over:
        action = (steps // 3) % 2
        state, shown, reward, over = task.step(state, jnp.int32(action), jax.random.key(steps))
        theirs, _, their_over, *_ = real.step(action)
        np.testing.assert_allclose(np.asarray(shown), theirs[[0, 2]], atol=1e-4)
        assert bool(over) == their_over
        assert float(reward) == pytest.approx(1 / 200)
        steps += 1
    assert 8 < steps < task.limit == 200


def test_noise_hides_the_position_and_leaves_the_cart_alone():
    plain, noisy = PositionOnlyCartPole(), PositionOnlyCartPole(0.1)
    state, _ = plain.reset(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 4_000)
    after, shown, *_ = jax.vmap(noisy.step, (None, None, 0))(state, jnp.int32(1), keys)
    truth, clear, *_ = plain.step(state, jnp.int32(1), keys[0])
    np.testing.assert_array_equal(np.asarray(after.x), np.full(4_000, truth.x))
    off = np.asarray(shown - clear)
    assert off.mean(0) == pytest.approx([0, 0], abs=0.01)
    assert off.std(0) == pytest.approx([0.1, 0.1], abs=0.005)
    assert np.abs(np.asarray(shown)[:, 1]).max() <= 2 * 12 * np.pi / 180 + 1e-6
