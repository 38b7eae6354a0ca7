"""The exported learner: it learns with NumPy what the compiled program learns.

Protects against another gradient, another statistic or another order of the two, a trace that continues
over an episode's end, a restart with other bits, and networks whose gradient it does not know.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from qhat.deploy.learner import Learner as Target
from qhat.deploy.learner.qhat_learner import Learner, LearnerError
from qhat.engine.calibration import RETURNS, STATISTICS, split_trainable
from qhat.engine.iteration import Program
from qhat.engine.learner import LearnerState
from qhat.engine.replay import ring as replay
from qhat.engine.streaming import streamed
from qhat.runtime import Policy
from qhat.system.errors import UsageError

STATE = "learner.safetensors"
LAYERS = ("hidden0", "q_hidden", "q")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("learner") / "run"
    return qhat.train(
        "CartPole-v1", "stream_q", steps=2_000, eval_every=1_000, eval_episodes=2, run_dir=folder
    )


@pytest.fixture(scope="module")
def exported(run: Any) -> Path:
    return qhat.export(run, targets="learner", observations=200).path


def cartpole(learner: Learner, count: int) -> Iterator[tuple]:
    """Yield real steps: of episodes that end by a fall, or by a limit of 30 steps; a third explore.

    The learner learns from them: what acts without learning makes others diverge, and rounding grow.
    """
    env, draw = gymnasium.make("CartPole-v1", max_episode_steps=30), np.random.default_rng(0)
    now, _ = env.reset(seed=1)
    for _ in range(count):
        action = int(draw.integers(2)) if draw.random() < 0.3 else learner.act(now, explore=False)
        after, reward, terminated, truncated, _ = env.step(action)
        yield now, action, float(reward), after, terminated, truncated
        learner.learn(now, action, float(reward), after, terminated, truncated)
        now = env.reset()[0] if terminated or truncated else after


def compiled(
    run: Any, steps: list[tuple], dtype: str
) -> tuple[dict[str, Any], Callable[[np.ndarray], np.ndarray]]:
    """Learn the steps with the compiled learner, from a run's best weights; return its weights and Q."""
    stored = jax.tree.map(np.asarray, run.weights("best"))
    with jax.enable_x64(dtype == "float64"):
        program: Program = run.program

        def widened(leaf: Any) -> Any:
            leaf = jnp.asarray(leaf[0])
            return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        online = jax.tree.map(widened, stored)
        spread = eqx.tree_at(lambda each: each.trace, online[RETURNS], jnp.zeros((), dtype))
        ring = program.init(jax.random.key(0), jnp.zeros((1, 4), jnp.float32), None).ring
        ring = eqx.tree_at(lambda each: (each.moments, each.scale), ring, (online[STATISTICS], spread))
        optimiser = program.recipe.optimiser.first(split_trainable(online)[0])
        optimiser["steps"] = spread.count
        state = LearnerState(online, None, optimiser)

        @jax.jit
        def learn(state: LearnerState, ring: Any, step: Any) -> tuple[LearnerState, Any]:
            ring, *_ = replay.store(ring, step)
            return streamed(program.learner, state, ring, jnp.int32(0))[0], ring

        for before, action, reward, after, *ends in steps:
            row = (before, [action], np.float32(reward), after, *ends, True)
            row = (np.asarray(part)[None] for part in row)
            row = (part.astype(np.int32) if part.dtype == np.int64 else part for part in row)
            state, ring = learn(state, ring, replay.Step(*map(jnp.asarray, row)))

        q = jax.jit(lambda observation: program.learner.q_values(state.online, observation))
        values = {tuple(step[0]): np.asarray(q(jnp.asarray(step[0]))) for step in steps[-50:]}
    return jax.tree.map(np.asarray, state.online), lambda observation: values[tuple(observation)]


@pytest.mark.parametrize(("dtype", "count", "limit"), [("float64", 10_000, 1e-6), ("float32", 1_000, 1e-3)])
def test_it_learns_what_the_compiled_program_learns(
    run: Any, exported: Path, dtype: str, count: int, limit: float
) -> None:
    """In float32 the two round differently, and a near tie between two actions cuts one of two traces."""
    steps = list(cartpole(Learner.load(exported / STATE, dtype), count))
    learner = Learner.load(exported / STATE, dtype)
    errors = [learner.learn(*step) for step in steps]
    theirs, q = compiled(run, steps, dtype)
    worst = max(
        float(np.abs(ours - theirs[name][part]).max())
        for name, layer in zip(LAYERS, learner._layers, strict=True)
        for part, ours in zip(("weight", "bias"), layer, strict=True)
    )
    off = max(float(np.abs(learner.q_values(step[0]) - q(step[0])).max()) for step in steps[-50:])
    print(f"{dtype}, {count:,} steps: weights within {worst:.2g}, Q-values within {off:.2g}")
    assert worst < limit
    assert off < limit
    assert np.isfinite(errors).all()
    for end in (4, 5):
        assert sum(step[end] for step in steps) > 2


def test_both_leave_out_a_step_of_huge_numbers(run: Any, exported: Path) -> None:
    """The compiled program ends the trace there, as `end_episode` does."""
    steps = list(cartpole(Learner.load(exported / STATE), 60))
    steps[30] = (*steps[30][:2], 1e20, *steps[30][3:])
    learner = Learner.load(exported / STATE)
    for at, step in enumerate(steps):
        if at == 30:
            with pytest.raises(LearnerError, match="too large to square"):
                learner.learn(*step)
            learner.end_episode()
        else:
            learner.learn(*step)
    theirs, _ = compiled(run, steps, "float32")
    for name, layer in zip(LAYERS, learner._layers, strict=True):
        for part, ours in zip(("weight", "bias"), layer, strict=True):
            np.testing.assert_allclose(ours, theirs[name][part], atol=1e-4)
    for name in ("count", "mean", "variance", "trace"):
        ours = learner._counts["returns" if name == "count" else "running" if name == "trace" else name]
        assert float(ours) == pytest.approx(float(getattr(theirs[RETURNS], name)), rel=1e-4), name
    assert int(theirs[RETURNS].refused) == 1


def test_a_robot_continues_where_the_schedules_of_its_checkpoint_are(tmp_path: Path) -> None:
    run = qhat.train(
        "CartPole-v1", "stream_q", steps=400, eval_every=200, eval_episodes=1, run_dir=tmp_path / "run",
        hidden=(8,), learning_rate_end=0.5, explore="epsilon:steps=1000",
    )  # fmt: skip
    folder = qhat.export(run, targets="learner", observations=100).path
    about = json.loads((folder / "policy.json").read_text())
    step, settings = about["source"]["step"], Learner.load(folder / STATE).settings
    assert 0 < step <= 400
    assert settings["epsilon"] == pytest.approx(1 - 0.95 * step / 1_000)
    assert settings["learning_rate"] == pytest.approx(1 - 0.5 * step / 400)
    about["stream"]["epsilon"], about["recipe"]["explore"] = None, {"name": "pink"}
    with pytest.raises(UsageError, match="explores with ε, and the run's explore is pink"):
        Target().check(about)


def test_a_saved_learner_continues_with_the_same_bits(exported: Path, tmp_path: Path) -> None:
    whole = Learner.load(exported / STATE)
    steps = list(cartpole(whole, 200))
    whole, part = Learner.load(exported / STATE), Learner.load(exported / STATE)
    for at, step in enumerate(steps):
        whole.learn(*step)
        part.learn(*step)
        if at == 100:
            part.save(tmp_path / "learner")
            whole.save(tmp_path / "whole")
            part, whole = Learner.load(tmp_path / "learner"), whole
            part._random.bit_generator.state = whole._random.bit_generator.state
    np.testing.assert_array_equal(whole.weights, part.weights)
    np.testing.assert_array_equal(whole.trace, part.trace)
    assert [whole.act(step[0]) for step in steps] == [part.act(step[0]) for step in steps]
    assert whole.steps == part.steps


def test_it_acts_as_the_exported_policy(exported: Path) -> None:
    learner, policy = Learner.load(exported / STATE), Policy.load(exported)
    for step in cartpole(Learner.load(exported / STATE), 100):
        np.testing.assert_allclose(
            learner.q_values(step[0]), policy.q_values(step[0]).reshape(1, 2), rtol=1e-4
        )


def test_the_program_needs_numpy_alone(exported: Path) -> None:
    code = (
        "import sys; from qhat_learner import Learner; import numpy as np;"
        "now = np.zeros(4, np.float32); one = Learner.load('learner.safetensors');"
        "one.learn(now, one.act(now), 1.0, now, False); one.save('again.safetensors');"
        "assert not {'jax', 'qhat', 'gymnasium', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.'); {code}"], check=True,
                   cwd=exported)  # fmt: skip
    (exported / "again.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({0: np.array([0.0, np.nan, 0, 0])}, "observation has numbers that are not finite"),
        ({3: np.zeros(3)}, r"next_observation has shape \(3,\); expected \(4,\)"),
        ({1: 2}, "action is 2; expected one that `act` returns"),
        ({1: 0.5}, "action is 0.5"),
        ({2: np.inf}, "reward is inf; expected a finite number"),
    ],
)
def test_a_step_that_is_none_is_refused(exported: Path, change: dict, says: str) -> None:
    learner = Learner.load(exported / STATE)
    before = learner.weights.copy()
    step = {**dict(enumerate(next(cartpole(learner, 1)))), **change}
    with pytest.raises(LearnerError, match=says):
        learner.learn(*step.values())
    np.testing.assert_array_equal(learner.weights, before)


def test_a_damaged_file_is_refused(exported: Path, tmp_path: Path) -> None:
    data = (exported / STATE).read_bytes()
    with pytest.raises(LearnerError, match="is missing"):
        Learner.load(tmp_path / "none")
    with pytest.raises(LearnerError, match="expected float32 or float64"):
        Learner.load(exported / STATE, "int32")
    for number, damaged in enumerate((b"", data[:40], data[:-4], b"x" * 100, data.replace(b"m2", b"m3"))):
        path = tmp_path / str(number)
        path.write_bytes(damaged)
        with pytest.raises(LearnerError, match=r"no learner, or damaged|is damaged|not where"):
            Learner.load(path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"recipe": "dqn"}, "the run's training is replay; expected a run of .*stream"),
        ({"recipe": "stream_q", "merge": "dueling"}, "the network has dueling streams"),
        ({"recipe": "stream_q", "policy": "softmax"}, "the largest value of all actions"),
        ({"recipe": "stream_q", "torso": "simba:width=8,blocks=1"}, "a program for dense layers"),
    ],
)
def test_what_it_cannot_learn_is_refused(tmp_path: Path, settings: Any, says: str) -> None:
    made: Any = {"hidden": (8,), "learning_starts": 0, "steps": 40, "eval_every": 20, **settings}
    run = qhat.train("CartPole-v1", eval_episodes=1, run_dir=tmp_path / "run", **made)
    with pytest.raises(UsageError, match=says):
        qhat.export(run, targets="learner", observations=100)
    assert not (tmp_path / "run" / "export").exists()
