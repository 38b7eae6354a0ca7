"""Pink noise: its spectrum and size, commands within the range, and the same decisions in NumPy and JAX."""

from __future__ import annotations

import re

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat.agent.agent import Agent
from qhat.axes.actions import Actions
from qhat.axes.axis import parse, spell
from qhat.axes.explore import EXPLORES, Pink
from qhat.system.errors import UsageError

WIDE = 201
JOINTS = Actions.binned([-1.0, 0.0], [1.0, 5.0], [WIDE, 3], "x")


def executed(
    explore: Pink, copies: int, steps: int, greedy: tuple[int, int] = (WIDE // 2, 1)
) -> np.ndarray:
    """Return the choices `[steps, copies, 2]` where the greedy ones are the middle."""
    best = jnp.broadcast_to(jnp.asarray(greedy, jnp.int32), (copies, 2))

    def body(state: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return explore.choose(state, best, key, jnp.int32(10**6), JOINTS)

    keys = jax.random.split(jax.random.key(0), steps)
    return np.asarray(jax.lax.scan(body, explore.init(copies, JOINTS), keys)[1])


def test_power_falls_as_one_over_the_frequency() -> None:
    moves = executed(Pink(0.2, 0.2, 0), copies=200, steps=2_048)[1_024:, :, 0] - WIDE // 2
    power = (np.abs(np.fft.rfft(moves, axis=0)) ** 2).mean(axis=1)
    frequency = np.arange(len(power)) / 1_024
    middle = (frequency > 0.01) & (frequency < 0.2)
    slope = np.polyfit(np.log(frequency[middle]), np.log(power[middle]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.15)


def test_sigma_is_in_half_ranges() -> None:
    moves = executed(Pink(0.2, 0.2, 0), copies=2_000, steps=600)[-1, :, 0] - WIDE // 2
    assert moves.std() == pytest.approx(0.2 * (WIDE - 1) / 2, rel=0.06)
    assert abs(moves.mean()) < 2.0


def test_commands_stay_within_the_range_and_joints_move_independently() -> None:
    for greedy in ((0, 0), (WIDE - 1, 2)):
        choices = executed(Pink(3.0, 3.0, 0), copies=50, steps=100, greedy=greedy)
        assert choices.min() == 0
        assert (choices.max(axis=(0, 1)) == (WIDE - 1, 2)).all()
    moves = executed(Pink(0.5, 0.5, 0), copies=500, steps=300)[-1]
    assert abs(np.corrcoef(moves.T)[0, 1]) < 0.2
    assert (executed(Pink(0.0, 0.0, 0), copies=5, steps=20) == (WIDE // 2, 1)).all()


def test_sigma_is_a_line_over_environment_steps() -> None:
    explore = Pink(0.9, 0.1).scheduled(10_000)
    assert explore == Pink(0.9, 0.1, steps=1_000)
    steps = np.array([0, 500, 1_000, 5_000])
    np.testing.assert_allclose(
        jax.vmap(explore.epsilon)(jnp.asarray(steps)), [0.9, 0.5, 0.1, 0.1], rtol=1e-6
    )


def test_numpy_decides_as_jax_does() -> None:
    explore, rng = Pink(1.0, 0.4, 50), np.random.default_rng(0)
    theirs, ours = explore.init(4, JOINTS), np.zeros((4, 2, 8), np.float32)
    for step in range(60):
        bits = rng.integers(0, 2**32, (4, explore.random_numbers(JOINTS)), dtype=np.uint32)
        greedy = np.stack([rng.integers(0, WIDE, 4), rng.integers(0, 3, 4)], axis=1).astype(np.int32)
        args = (bits, step, JOINTS, None)
        theirs, expected = explore.decide(theirs, greedy, *args, jnp)
        ours, found = explore.decide(ours, greedy, *args, np)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        assert np.abs(found - np.asarray(expected)).max() <= 1, "a rounding may fall the other way"
        assert ours.dtype == np.float32


def test_an_illegal_command_is_replaced_by_the_greedy_one() -> None:
    explore, rng = Pink(2.0, 2.0, 0), np.random.default_rng(0)
    actions = Actions.binned([0.0], [1.0], [5], "x")
    legal = np.array([[[True, False, True, False, False]]])
    greedy, state = np.array([[2]], np.int32), np.zeros((1, 1, 8), np.float32)
    found = set()
    for _ in range(200):
        bits = rng.integers(0, 2**32, (1, 8), dtype=np.uint32)
        state, action = explore.decide(state, greedy, bits, 0, actions, legal, np)
        found.add(int(action[0, 0]))
    assert found == {0, 2}


def test_actions_without_an_order_are_refused() -> None:
    with pytest.raises(UsageError, match=r"choices without an order. Expected .*epsilon"):
        Agent((3,), 4, explore="pink")


@pytest.mark.parametrize("text", ["pink", "pink:start=2.0,end=0.1,steps=500"])
def test_it_is_spelled(text: str) -> None:
    assert spell(parse(text, EXPLORES)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pink:end=-1", "pink:end is -1.0; expected a σ within [0, 100]."),
        ("pink:steps=-1", "pink:steps is -1; expected 0 or more"),
        ("pink:fraction=2", "pink:fraction is 2.0; expected a share"),
    ],
)
def test_settings_without_meaning_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        parse(text, EXPLORES)


def test_an_agent_of_a_robot_explores_with_it() -> None:
    agent = Agent((3,), gymnasium.spaces.Box(-1.0, 1.0, (2,)), bins=(9,), explore="pink", seed=0)
    rng = np.random.default_rng(0)
    before = rng.normal(size=3).astype(np.float32)
    greedy = agent.act(before, explore=False)
    moved = np.array([agent.act(before.copy()) for _ in range(100)])
    assert ((moved >= -1) & (moved <= 1)).all()
    assert (moved != greedy).any(axis=0).all()


def test_each_of_several_actors_has_its_sigma() -> None:
    first, *_, last = (Pink(0.5, 0.3, 100).for_actor(actor, 4) for actor in range(4))
    assert isinstance(first, Pink)
    assert isinstance(last, Pink)
    assert first.end == pytest.approx(0.4)
    assert last.end == pytest.approx(0.4**8)
    assert Pink().for_actor(0, 1) == Pink()
