"""Batches with a fixed share of demonstrations: `--demo-share`.

Protects against demonstrations that are overwritten, a share that is not the one asked for, priorities or
marks of one part that reach the other, statistics without the demonstrations, and runs that ask for a share
of nothing.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import qhat
from qhat import recipes
from qhat.axes import Actions, Categorical, Margin, MinGRU, Prioritised
from qhat.cli import main
from qhat.demonstrations.reading import Demonstrations, read
from qhat.engine.iteration import Program
from qhat.engine.prefill import prefill, rows_of
from qhat.engine.replay import sequences
from qhat.engine.replay.nstep import NOTHING
from qhat.engine.state import Clock, SeedState, TrainState
from qhat.environments.base import Spec, Timestep
from qhat.recipes.recipe import Recipe

SPEC = Spec("it", "own", (2,), "float32", Actions((3,)))
TINY = dataclasses.replace(
    recipes.get("double_dqn"), hidden=(8,), batch_size=16, replay_capacity=200, learning_starts=16,
    demo_share=0.25,
).scheduled()  # fmt: skip
SETTINGS: dict[str, Any] = {
    "hidden": (16,), "batch_size": 16, "replay_capacity": 120, "steps": 400, "eval_every": 200,
    "eval_episodes": 2, "learning_starts": 16, "demo_share": 0.5,
}  # fmt: skip


def log_file(path: Path, count: int = 20, length: int = 10, size: int = 4, choices: int = 2) -> str:
    """Write episodes; every observation is one that no environment gives: its first number is its row."""
    T, rng = count * length, np.random.default_rng(0)
    observation = rng.normal(size=(T, size)).astype(np.float32)
    observation[:, 0] = 1_000 + np.arange(T)
    ends = np.arange(1, T + 1) % length == 0
    after = np.concatenate([observation[1:], observation[:1]])
    after[ends] = -1_000
    np.savez(
        path, observation=observation, action=rng.integers(choices, size=T), next_observation=after,
        reward=np.arange(T, dtype=np.float32), terminated=ends,
    )  # fmt: skip
    return str(path)


def demos_of(folder: Path) -> Demonstrations:
    return read(log_file(folder / "log.npz", size=2, choices=3), SPEC)


def begun(recipe: Recipe, demos: Demonstrations, steps: int = 60) -> tuple[Program, SeedState]:
    """Return a program, and a seed with demonstrations and `steps` steps of its run."""
    program = Program.of(recipe.validate(), SPEC.shape, SPEC.dtype, SPEC.actions)
    program = dataclasses.replace(program, logged=rows_of([demos], 1, 1))
    E = recipe.num_envs
    seeds = jax.vmap(lambda key: program.init(key, jnp.zeros((E, 2)), None))(
        jax.random.split(jax.random.key(0), 1)
    )
    state = prefill(program, TrainState(Clock(jnp.int32(0), jnp.int32(0)), seeds), demos)
    seed = jax.tree.map(lambda leaf: leaf[0], state.seeds)
    no = jnp.zeros(E, bool)
    store = jax.jit(program.store)
    for step in range(steps):
        now = jnp.full((E, 2), step + 1.0)
        ended = jnp.full(E, step % 7 == 6)
        timestep = Timestep(now, jnp.full(E, 0.5), ended, no, successor=now, real=~no)
        seed = dataclasses.replace(store(seed, timestep), observation=now)
    return program, seed


def drawing(program: Program) -> Any:
    """Return a compiled function that draws a batch of a seed, by number."""
    recipe = program.recipe
    sample = sequences.sampling(recipe.memory, program.sampler)

    def draw(seed: SeedState, number: int) -> Any:
        return sample(
            seed.ring, program.sampler, seed.sampler, jax.random.key(number), jnp.int32(0),
            batch=recipe.batch_size, n=recipe.n_step, gamma=recipe.gamma,
        )  # fmt: skip

    return jax.jit(draw)


@pytest.mark.parametrize("sampler", ["uniform", "prioritised"])
@pytest.mark.parametrize(("envs", "n"), [(1, 1), (3, 4)])
def test_every_batch_has_the_share(sampler: str, envs: int, n: int, tmp_path: Path) -> None:
    demos, parts = demos_of(tmp_path), {"uniform": TINY.sampler, "prioritised": Prioritised()}
    recipe = dataclasses.replace(
        TINY, sampler=parts[sampler], num_envs=envs, n_step=n, replay_capacity=300, replay_ratio=1.0
    )
    program, seed = begun(recipe, demos)
    met, draw = set(), drawing(program)
    for number in range(200):
        batch, slots, weights = jax.tree.map(np.asarray, draw(seed, number))
        logged = np.asarray(batch.observation[:, 0]) >= 1_000
        assert logged.tolist() == [True] * 4 + [False] * 12 == np.asarray(batch.logged).tolist()
        assert (np.asarray(weights) > 0).all()
        assert (np.asarray(slots) < seed.ring.size).tolist() == (~logged).tolist()
        for at in np.flatnonzero(logged):
            row = int(batch.observation[at, 0]) - 1_000
            met.add(row)
            steps = min(n, 10 - row % 10)
            reward = sum(recipe.gamma**j * (row + j) for j in range(steps))
            assert float(batch.reward[at]) == pytest.approx(reward, rel=1e-5)
            ended = row % 10 + steps == 10
            assert float(batch.successor[at, 0]) == (-1_000 if ended else 1_000 + row + steps)
            assert (float(batch.discount[at]) == 0) == ended
            assert int(batch.action[at, 0]) == demos.action[row, 0]
    assert len(met) > 170, "all rows are drawn, sooner or later"


def test_demonstrations_stay_when_replay_is_full(tmp_path: Path) -> None:
    demos = demos_of(tmp_path)
    _, before = begun(TINY, demos, steps=0)
    _, after = begun(TINY, demos, steps=500)
    assert int(after.ring.filled[0]) == 200
    jax.tree.map(np.testing.assert_array_equal, before.ring.logged, after.ring.logged)
    logged = after.ring.logged
    assert logged is not None
    starts = np.flatnonzero(np.asarray(logged.kind) != NOTHING)
    np.testing.assert_array_equal(np.asarray(logged.observation)[starts], demos.observation)
    np.testing.assert_array_equal(np.asarray(logged.reward)[starts], demos.reward)


def test_each_part_has_its_priorities(tmp_path: Path) -> None:
    program, seed = begun(dataclasses.replace(TINY, sampler=Prioritised()), demos_of(tmp_path))
    _, slots, _ = drawing(program)(seed, 0)
    errors = jnp.where(slots > seed.ring.size, 1e4, 1e-4)
    (run, largest), (beside, largest_beside) = program.sampler.update(seed.sampler, slots, errors)
    assert float(largest) == 1.0
    assert float(largest_beside) > 100
    mine, theirs = (np.asarray(tree.leaves) for tree in (run, beside))
    changed = np.flatnonzero(mine != np.asarray(seed.sampler[0][0].leaves))
    assert set(changed) == set(np.asarray(slots[4:]).tolist())
    assert mine[changed].max() < 1
    changed = np.flatnonzero(theirs != np.asarray(seed.sampler[1][0].leaves))
    assert set(changed) == set((np.asarray(slots[:4]) - seed.ring.size - 1).tolist())


def test_weights_undo_priorities_within_each_part_alone(tmp_path: Path) -> None:
    sampler = Prioritised(beta=1.0)
    program, seed = begun(dataclasses.replace(TINY, sampler=sampler, batch_size=64), demos_of(tmp_path))
    rng = np.random.default_rng(1)
    state = seed.sampler
    for first in (0, seed.ring.size + 1):
        known = jnp.arange(first, first + 60)
        state = program.sampler.update(state, known, jnp.asarray(rng.uniform(0.1, 10, 60), jnp.float32))
    seed = dataclasses.replace(seed, sampler=state)
    sums = {True: 0.0, False: 0.0}
    draw = drawing(program)
    for number in range(300):
        batch, _, weights = draw(seed, number)
        for is_logged in sums:
            part = np.asarray(weights)[np.asarray(batch.logged) == is_logged]
            sums[is_logged] += part.mean() / np.asarray(weights).mean()
    # With β = 1 the mean weight of a part is that of a uniform draw: both parts count by their share.
    assert sums[True] / 300 == pytest.approx(1, abs=0.08)
    assert sums[False] / 300 == pytest.approx(1, abs=0.08)


def test_marks_of_greedy_steps_are_of_their_part(tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, n_step=3, n_step_cut=0.1)
    program, seed = begun(recipe, demos_of(tmp_path))
    assert seed.ring.greedy is not None
    assert seed.ring.greedy.shape == (200 + 1 + program.logged,)
    learner, _, greedy, _ = jax.jit(program.update)(
        seed.learner, seed.ring, seed.sampler, jax.random.key(0), jnp.int32(0), jnp.int32(1)
    )
    # With marks, windows of demonstrations are as long as the actions in them are greedy.
    every = dataclasses.replace(seed.ring, greedy=jnp.ones_like(greedy))
    none = dataclasses.replace(seed.ring, greedy=jnp.zeros_like(greedy))
    reach = {}
    for name, ring in (("all", every), ("none", none)):
        batch, _, _ = drawing(program)(dataclasses.replace(seed, ring=ring), 0)
        reach[name] = np.asarray(batch.successor[:4, 0] - batch.observation[:4, 0])
    assert set(reach["none"][reach["none"] > 0].tolist()) <= {1.0}
    assert 3.0 in reach["all"]
    assert np.asarray(greedy)[: seed.ring.size].sum() + np.asarray(greedy)[seed.ring.size + 1 :].sum() > 0
    assert jax.tree.leaves(learner)


def test_statistics_and_supports_are_of_the_demonstrations_too(tmp_path: Path) -> None:
    demos = demos_of(tmp_path)
    recipe = dataclasses.replace(TINY, normalise=True, head=Categorical(), demo_share=0.25)
    _, seed = begun(recipe, demos, steps=0)
    rows = np.concatenate([demos.observation, demos.successor[demos.terminated]])
    assert seed.ring.moments is not None
    assert float(seed.ring.moments.count) == len(rows)
    np.testing.assert_allclose(np.asarray(seed.ring.moments.mean), rows.mean(axis=0), rtol=1e-4, atol=1e-3)
    assert seed.ring.outlook is not None
    assert float(seed.ring.outlook.rewards[1]) == demos.reward.max()


def test_a_run_keeps_them_and_resumes_without_the_file(tmp_path: Path) -> None:
    data = log_file(tmp_path / "log.npz")
    settings: Any = {**SETTINGS, "recipe": "per_dqn", "seeds": 2, "save_every": 100, "demos": [data]}
    run = qhat.train("CartPole-v1", run_dir=tmp_path / "run", **settings)
    assert run.folder.read_config()["demo_rows"] == 220
    pieces = sorted(run.folder.last().glob("replay-*"))
    assert [path.name for path in pieces] == [f"replay-{s}-{i}.safetensors" for s in (0, 1) for i in (0, 1)]
    for seed in (0, 1):
        beside = load_file(run.folder.last() / f"replay-{seed}-1.safetensors")
        starts = beside["kind"] != NOTHING
        np.testing.assert_array_equal(beside["observation"][starts, 0], 1_000 + np.arange(200))
    # Nothing is read again.
    Path(data).unlink()
    longer = qhat.train("CartPole-v1", run_dir=tmp_path / "run", resume=True, steps=800)
    assert longer.summary()["step"] == 800
    after = load_file(longer.folder.last() / "replay-1-1.safetensors")
    np.testing.assert_array_equal(after["observation"], beside["observation"])


@pytest.mark.parametrize("envs", [1, 2])
def test_environments_in_python_learn_the_same_way(envs: int, tmp_path: Path) -> None:
    settings: Any = {**SETTINGS, "recipe": "rainbow_lite", "num_envs": envs, "n_step": 3}
    run = qhat.train(
        "gym:CartPole-v1", run_dir=tmp_path / "run", demos=[log_file(tmp_path / "log.npz")], **settings
    )
    assert run.summary()["step"] == 400
    longer = qhat.train("gym:CartPole-v1", run_dir=tmp_path / "run", resume=True, steps=500)
    assert longer.summary()["step"] == 500


class Guarded(gymnasium.Env):
    """Allows two of three actions; the third one raises."""

    observation_space = gymnasium.spaces.Box(0, 2, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._say()

    def _say(self) -> Any:
        self.forbidden = int(self.np_random.integers(3))
        mask = np.ones(3, np.int8)
        mask[self.forbidden] = 0
        return np.full(4, self.forbidden, np.float32), {"action_mask": mask}

    def step(self, action: int) -> Any:
        assert action != self.forbidden, "an action that the mask forbids"
        self.time += 1
        return *self._say_after(), {"action_mask": self.mask}

    def _say_after(self) -> tuple[Any, float, bool, bool]:
        observation, about = self._say()
        self.mask = about["action_mask"]
        return observation, 1.0, False, self.time == 9


def test_masks_guard_the_steps_of_such_a_run(tmp_path: Path) -> None:
    data = log_file(tmp_path / "log.npz", choices=3)
    with np.load(data) as file:
        columns = dict(file)
    masks = np.zeros((200, 3), np.int8)
    masks[np.arange(200), columns["action"]] = 1
    np.savez(data, mask=masks, next_mask=np.ones((200, 3), np.int8), **columns)
    settings: Any = {**SETTINGS, "explore": "epsilon:start=1,end=1"}
    # A forbidden action raises an exception in the environment, which ends the run.
    run = qhat.train(Guarded, "dqn", run_dir=tmp_path / "run", demos=[data], **settings)
    assert run.summary()["step"] == 400
    beside = load_file(run.folder.last() / "replay-0-1.safetensors")
    starts = beside["kind"] != NOTHING
    np.testing.assert_array_equal(beside["legal"][starts, 0], masks.astype(bool))


def test_the_margin_is_of_demonstrations_alone(tmp_path: Path) -> None:
    """Recorded actions win by the margin, where no reward says so; the run's steps do not."""
    recipe = dataclasses.replace(
        TINY, behaviour=Margin(size=2.0, weight=5.0), gamma=1e-6, hidden=(32,), batch_size=64,
        learning_rate=1e-2, learning_rate_end=None, demo_share=0.5,
    )  # fmt: skip
    demos = demos_of(tmp_path)
    # Observations by which the two kinds of steps differ, and nothing else.
    observation = np.full_like(demos.observation, 1.0)
    demos = dataclasses.replace(
        demos, observation=observation, successor=observation, action=np.full_like(demos.action, 2),
        reward=np.zeros_like(demos.reward), truncated=demos.truncated | True,
    )  # fmt: skip
    program, seed = begun(recipe, demos)
    rows = seed.ring.observation.at[:].set(-1.0)
    seed = dataclasses.replace(seed, ring=dataclasses.replace(seed.ring, observation=rows))
    update = jax.jit(program.update)
    learner = seed.learner
    for number in range(300):
        key = jax.random.key(number)
        learner, *_ = update(learner, seed.ring, seed.sampler, key, jnp.int32(0), jnp.int32(number + 1))
    q = program.learner.q_values(learner.online, jnp.ones(2))[0]
    assert float(q[2] - jnp.maximum(q[0], q[1])) > 1
    action = int(seed.ring.action[0, 0])
    q = program.learner.q_values(learner.online, -jnp.ones(2))[0]
    assert float(q[action]) == pytest.approx(0.5, abs=0.2), "the reward of the run's steps"


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "takes a share of every batch from demonstrations, and there are none": ("dqn", {"demos": ()}),
    "expected a share from 0 to below 1": ("dqn", {"demo_share": 1.0}),
    "is 0 transitions; expected some of both kinds": ("dqn", {"demo_share": 0.01}),
    "which have no states of": ("dqn", {"memory": MinGRU(length=8, burn_in=2)}),
    "draws no batches that demonstrations could share": ("pqn", {"replay_ratio": 1 / 16, "num_envs": 16}),
    "learns from recorded steps alone; expected demo_share=0.0": ("cql", {}),
    "margin counts for recorded steps": ("dqn", {"behaviour": "margin", "demo_share": 0.0}),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_a_share_of_nothing_is_refused(sentence: str, tmp_path: Path) -> None:
    recipe, changes = WRONG[sentence]
    settings: Any = {**SETTINGS, "demos": [log_file(tmp_path / "log.npz")], **changes}
    with pytest.raises(qhat.UsageError, match=sentence):
        qhat.train("CartPole-v1", recipe, run_dir=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_cluster_and_an_agent_take_no_share(tmp_path: Path) -> None:
    with pytest.raises(qhat.UsageError, match="an Agent has no demonstrations"):
        qhat.Agent(4, 2, demo_share=0.5)
    settings: Any = {**SETTINGS, "demos": [log_file(tmp_path / "log.npz")], "cluster": "local", "seeds": 2}
    with pytest.raises(qhat.UsageError, match="has no meaning for seeds that cluster spreads"):
        qhat.train("CartPole-v1", "dqn", run_dir=tmp_path / "run", **settings)


def test_dqfd_learns_from_logs_first_and_then_acts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, off, on = log_file(tmp_path / "log.npz"), str(tmp_path / "off"), str(tmp_path / "on")
    small = ["--hidden", "8", "--batch-size", "16", "--steps", "200", "--eval-every", "200"]
    small += ["--eval-episodes", "2", "--json", "--recipe", "dqfd"]
    steps = ["--learning-rate", "1e-5", "--learning-rate-end", "1e-5"]
    for words in (
        ["learn", data, "--env", "CartPole-v1", "--run-dir", off, *small],
        ["train", "CartPole-v1", "--init-from", off, "--demos", data, "--run-dir", on, *small, *steps],
    ):
        with pytest.raises(SystemExit) as done:
            main.main(words)
        assert done.value.code == 0, capsys.readouterr().err
    written = json.loads((Path(on) / "config.json").read_text())
    assert written["recipe"]["demo_share"] == 0.5
    agent = qhat.Agent.load(on)
    assert (agent.recipe.demo_share, agent.recipe.behaviour.name) == (0, "none")
    assert agent.act(np.zeros(4, np.float32)) in (0, 1)
    assert written["recipe"]["behaviour"] == {"name": "margin", "size": 0.8, "weight": 1.0}
