"""The catalogue tells the truth, and the compiled twins move as Gymnasium's environments do.

Protects against training on another task than the one that is scored.
"""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat.environments.catalogue import GYMNAX
from qhat.environments.make import make

DISCRETE = [entry for entry in GYMNAX if entry.actions.endswith(" discrete")]


@pytest.mark.parametrize("entry", DISCRETE, ids=lambda entry: entry.id)
def test_catalogue_says_what_the_environment_is(entry) -> None:
    environment = make(entry.id, 2)
    spec = environment.spec
    shape = ", ".join(map(str, spec.shape)) + ("," if len(spec.shape) == 1 else "")
    assert entry.observation == f"({shape}) {spec.dtype}"
    assert f"{spec.actions.width} discrete" == entry.actions
    key, action = jax.random.key(0), jnp.zeros((2, 1), jnp.int32)
    state, observation = jax.eval_shape(environment.reset, key)
    _, now = jax.eval_shape(environment.step, state, action, key)
    assert observation.shape == now.observation.shape == now.successor.shape == (2, *spec.shape)
    assert observation.dtype == now.successor.dtype == np.dtype(spec.dtype)


def _place(entry_id: str, gym_env, state) -> None:
    """Put Gymnasium's environment into the state of gymnax's first copy."""
    one = jax.tree.map(lambda leaf: float(np.asarray(leaf).reshape(-1)[0]), state)
    inner = gym_env.unwrapped
    if entry_id == "CartPole-v1":
        inner.state = np.array([one.x, one.x_dot, one.theta, one.theta_dot])
    elif entry_id == "MountainCar-v0":
        inner.state = np.array([one.position, one.velocity])
    else:
        inner.state = np.array([one.joint_angle1, one.joint_angle2, one.velocity_1, one.velocity_2])


@pytest.mark.parametrize("entry_id", ["CartPole-v1", "MountainCar-v0", "Acrobot-v1"])
def test_twin_moves_as_the_reference_does(entry_id: str) -> None:
    twin, reference = make(entry_id, 1), gymnasium.make(entry_id)
    state, _ = jax.jit(twin.reset)(jax.random.key(3))
    reference.reset(seed=0)
    _place(entry_id, reference, state)
    step = jax.jit(twin.step)
    actions = np.random.default_rng(0).integers(twin.spec.actions.width, size=200)
    for turn, action in enumerate(actions):
        state, now = step(state, jnp.array([[action]]), jax.random.key(turn))
        observation, reward, terminated, truncated, _ = reference.step(int(action))
        np.testing.assert_allclose(now.successor[0], observation, rtol=1e-3, atol=2e-4)
        assert float(now.reward[0]) == reward
        assert bool(now.terminated[0]) == terminated
        if terminated or truncated:
            break
    reference.close()


@pytest.mark.parametrize(("entry_id", "limit"), [("CartPole-v1", 500), ("MountainCar-v0", 200)])
def test_a_time_limit_truncates_and_shows_the_true_last_observation(entry_id: str, limit: int) -> None:
    environment = make(entry_id, 1)
    state, observation = jax.jit(environment.reset)(jax.random.key(0))
    step = jax.jit(environment.step)
    before = observation
    turn, now = -1, None
    for turn in range(limit):
        if entry_id == "CartPole-v1":  # a hand-made balancing rule
            lean = np.asarray(before)[0] @ [0.02, 0.05, 1.0, 0.3]
            action = np.array([[lean > 0]], np.int32)
        else:
            action = np.array([[1]], np.int32)
        state, now = step(state, action, jax.random.key(turn))
        if bool(now.terminated[0]) or bool(now.truncated[0]):
            break
        before = now.observation
    assert turn == limit - 1
    assert now is not None
    assert bool(now.truncated[0])
    assert not bool(now.terminated[0])
    assert float(jnp.abs(now.successor - before).max()) < 0.5
    assert not np.array_equal(now.successor, now.observation)
