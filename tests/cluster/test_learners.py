"""A batch that several devices share: the update is the one of a single device, and all devices agree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import qhat
from full import FULL
from qhat import recipes
from qhat.axes.actions import Actions
from qhat.axes.heads import Categorical
from qhat.cluster.environment import ActorEnvironment
from qhat.cluster.loop import ActorLoop
from qhat.cluster.queue import empty
from qhat.engine.compiler import Compiled
from qhat.engine.iteration import Program
from qhat.engine.state import TrainState
from qhat.environments.base import Spec
from qhat.recipes.recipe import Recipe
from qhat.system import devices

DEPTH, LANES, CALLS, TURNS = 32, 2, 3, 16
SMALL = {"hidden": (16,), "batch_size": 16, "num_envs": LANES, "replay_capacity": 1_000}
SMALL |= {"learning_starts": 40, "replay_ratio": 0.5}
VECTOR = Spec("vector", "gym", (3,), "float32", Actions((3, 2)))
MASKED = dataclasses.replace(VECTOR, masked=True)
PICTURE = Spec("picture", "gym", (20, 20, 2), "uint8", Actions((3,)))
GROWING = Categorical(atoms=11)


def small(name: str, **changes: Any) -> Recipe:
    return dataclasses.replace(recipes.get(name), **{**SMALL, **changes}).scheduled()


# Here are no goals, and no joints with a range.
ALL = [
    name
    for name, recipe in recipes.RECIPES.items()
    if not recipe.relabel.happens and recipe.resolution.name == "full"
]
CASES: dict[str, tuple[Recipe, Spec]] = {
    name: (small(name), VECTOR) for name in (ALL if FULL else ("rainbow", "m_iqn", "bdq"))
} | {
    "normalised": (small("hl_gauss_dqn", normalise=True), VECTOR),
    "growing": (small("c51", head=GROWING), VECTOR),
    "masked": (small("per_dqn"), MASKED),
    # The threshold is a mean over the batch, and most actions are near it.
    "cut": (small("rainbow_lite", n_step_cut=0.9), VECTOR),
    "shifted": (small("double_dqn", random_shift=2, torso=recipes.get("dqn").torso), PICTURE),
}


class Stand(ActorEnvironment):
    """Stands in for actors, where only the learner computes."""

    def __init__(self, spec: Spec):
        self.spec, self.logs, self.num_envs, self.copies = spec, (), LANES, 1


def learner(recipe: Recipe, spec: Spec, devices: int) -> tuple[ActorLoop, TrainState, Compiled]:
    recipe = recipe.fitted(spec.shape, spec.layout)
    about = (spec.shape, spec.dtype, spec.actions, spec.masked)
    loop = ActorLoop(Program.of(recipe, *about, layout=spec.layout), Stand(spec), devices)
    keys = jax.random.split(jax.random.key(0), 1)
    call = loop.compile_call(rows(loop, 0), jax.eval_shape(loop.init, keys))
    return loop, loop.init(keys), call


def rows(loop: ActorLoop, seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Rows of a call: random steps, a tenth of which ends an episode."""
    random, spec = np.random.default_rng(seed), loop.environment.spec
    packed = dict(empty(loop._like(), DEPTH, LANES).leaves())
    for name in ("observation", "after", "successor"):
        drawn = random.integers(0, 256, packed[name].shape) if spec.dtype == "uint8" else None
        packed[name][:] = random.normal(size=packed[name].shape) if drawn is None else drawn
    packed["action"][:] = random.integers(0, spec.actions.choices, packed["action"].shape)
    for name in ("legal", "legal_after", "legal_successor") if spec.masked else ():
        packed[name][..., 1] = random.random(packed[name].shape[:-1]) < 0.5
    reward = scale * random.normal(size=(DEPTH, LANES))
    over = random.random((DEPTH, LANES)) < 0.1
    by_limit = random.random((DEPTH, LANES)) < 0.5
    zero = np.zeros_like(reward)
    flags = (reward, over & ~by_limit, over & by_limit, zero + 1, reward, over, zero)
    packed["numbers"][:] = np.stack(flags, axis=1)
    return packed


def trained(loop: ActorLoop, state: TrainState, call: Compiled, growth: float = 4.0) -> TrainState:
    """Do calls, each with larger rewards than the one before."""
    for index in range(CALLS):
        before, packed = jax.tree.leaves(state.seeds), rows(loop, index, scale=growth**index)
        state, _, metrics = call(state, packed, np.int32(DEPTH), np.int32(TURNS))
        assert all(leaf.is_deleted() for leaf in before if leaf.size), "the state is donated"
        assert index == 0 or np.isfinite(metrics.loss).any()
    return state


def numbers(leaf: Any) -> np.ndarray:
    is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def require_close(one: TrainState, other: TrainState) -> None:
    """Require equal counters and replay, and parameters, moments and priorities up to rounding."""
    for (path, left), (_, right) in zip(
        *map(jax.tree_util.tree_leaves_with_path, (one, other)), strict=True
    ):
        name, left, right = jax.tree_util.keystr(path), numbers(left), numbers(right)
        if left.dtype.kind == "f" and ".ring" not in name:
            most = np.abs(left).max(initial=1e-6)
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5 * most, err_msg=name)
        else:
            np.testing.assert_array_equal(left, right, err_msg=name)


def require_agreement(state: TrainState) -> None:
    """Require the same bits on every device."""
    for leaf in jax.tree.leaves(state):
        parts = [numbers(part.data) for part in leaf.addressable_shards]
        assert len(parts) == 2
        for part in parts[1:]:
            np.testing.assert_array_equal(parts[0], part)


@pytest.fixture(autouse=True)
def _two_devices() -> None:
    if len(jax.local_devices()) < 2:
        pytest.skip("this machine has one core, so JAX was given one device")


@pytest.mark.parametrize("name", CASES)
def test_an_update_over_two_devices_is_the_update_on_one(name: str):
    growth = 1_000.0 if name == "growing" else 4.0
    single, shared = (trained(*learner(*CASES[name], devices), growth) for devices in (1, 2))
    assert int(single.clock.updates) > 20
    if name == "growing":
        # What the devices compute together there is in a loop that most updates do not enter.
        spacing = numbers(single.seeds.learner.online["support"]["spacing"])
        assert spacing > 20_000, "the support was doubled"
    require_agreement(shared)
    require_close(single, shared)


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_over_two_devices_resumes_on_one_and_on_two_again(tmp_path: Path, saved: list[Any]):
    folder, env = tmp_path / "run", "gym:cluster_envs:Numbered-v0"
    settings: dict[str, Any] = {
        "actors": 2, "actor_cpus": 0.2, "cluster": "auto", "hidden": 8, "eval_episodes": 1,
        "sampler": "prioritised", "replay_capacity": 10_000, "save_every": 400, "eval_every": 400,
        "run_dir": folder,
    }  # fmt: skip
    qhat.train(env, "qhat", steps=400, learners=2, **settings)
    require_agreement(saved[-1])
    config = json.loads((folder / "config.json").read_text())
    assert config["learners"] == 2
    # A run of an earlier version has no such setting.
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "learners"}))
    qhat.train(env, "qhat", steps=800, resume=True, **settings)
    assert all(len(leaf.addressable_shards) == 1 for leaf in jax.tree.leaves(saved[-1]))
    run = qhat.train(env, "qhat", steps=1_200, resume=True, learners=2, **settings)
    require_agreement(saved[-1])
    assert [int(state.clock.iterations) for state in saved] == [200, 400, 600]
    updates = [int(state.clock.updates) for state in saved]
    assert 0 < updates[0] < updates[1] < updates[2]
    assert run.summary()["step"] == 1_200


def test_more_learners_than_devices_are_refused(tmp_path: Path):
    with pytest.raises(qhat.UsageError, match="learners is 8, but JAX has 2 device"):
        qhat.train("gym:CartPole-v1", "dqn", actors=1, learners=8, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("batch", "gpus", "learners"), [(64, 4, 4), (64, 3, 2), (30, 4, 3), (7, 4, 1)])
def test_by_default_all_gpus_share_a_batch_and_no_cores(
    monkeypatch: pytest.MonkeyPatch, batch: int, gpus: int, learners: int
):
    monkeypatch.setattr(jax, "local_devices", lambda: [None] * gpus)
    assert devices.learners_for(batch, None) == 1
    monkeypatch.setattr(devices, "on_cpu", lambda: False)
    assert devices.learners_for(batch, None) == learners
    assert devices.learners_for(batch, 1) == 1
