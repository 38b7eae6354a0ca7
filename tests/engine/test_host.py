"""The host loop and Gymnasium's boundaries: what replay holds is what the environments did.

Protects against successors of another episode, steps that are lost or stored twice, and environments that
fail without a word.
"""

import concurrent.futures
import dataclasses
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from qhat.engine.host import HostLoop
from qhat.engine.iteration import Program
from qhat.engine.replay.nstep import NOTHING, TERMINATED, TRUNCATED
from qhat.environments.catalogue import find
from qhat.environments.gymnasium.environment import GymnasiumEnvironment
from qhat.recipes.config import TrainConfig
from qhat.runs.run import evaluate
from qhat.runs.train import Interrupted, train
from qhat.system.errors import QhatError, UsageError
from tiny import TINY

ALONE = dataclasses.replace(TINY, num_envs=1, replay_capacity=4_000)


class Scripted(gymnasium.Env):
    """Ends at random, terminated, truncated or both; records everything that it did."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def __init__(self, made: list["Scripted"]):
        made.append(self)
        self.number, self.episode, self.past = len(made), 0, []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return self._observation(), {}

    def _observation(self) -> np.ndarray:
        return np.array([self.number, self.episode, self.time], np.float64)

    def step(self, action: int) -> Any:
        assert self.action_space.contains(action), "the space's own numbers, from 5"
        before = self._observation()
        self.time += 1
        reward = float(self.np_random.normal())
        terminated, truncated = (bool(flag) for flag in self.np_random.random(2) < 0.1)
        self.past.append((before, action - 5, reward, self._observation(), terminated, truncated))
        return self._observation(), reward, terminated, truncated, {}


def scripted(num_envs: int, seeds: tuple[int, ...]) -> tuple[GymnasiumEnvironment, list[Scripted]]:
    made: list[Scripted] = []
    environment = GymnasiumEnvironment.of("scripted", lambda: Scripted(made), num_envs, seeds)
    return environment, made


def loop_of(environment: Any, recipe: Any) -> HostLoop:
    spec = environment.spec
    return HostLoop(Program.of(recipe, spec.shape, spec.dtype, spec.actions), environment)


@pytest.mark.parametrize(("num_envs", "seeds"), [(1, (0,)), (7, (0,)), (2, (0, 5))])
def test_replay_holds_what_the_environments_did(num_envs: int, seeds: tuple[int, ...]):
    environment, made = scripted(num_envs, seeds)
    recipe = dataclasses.replace(ALONE, num_envs=num_envs, replay_ratio=1 / num_envs)
    loop = loop_of(environment, recipe)
    run = loop.compile(100)
    state = loop.init(jax.random.split(jax.random.key(0), len(seeds)))
    logs = []
    for count in (60, 90):
        state, log = run(state, count)
        logs.append(log)
    rings = jax.tree.map(np.asarray, state.seeds.ring)
    for index, env in enumerate(made[-num_envs * len(seeds) :]):
        seed, copy = divmod(index, num_envs)
        rows = slice(copy * rings.rows, copy * rings.rows + int(rings.filled[seed, copy]) + 1)
        observation, kind = rings.observation[seed, rows], rings.kind[seed, rows]
        starts = np.flatnonzero(kind != NOTHING)
        assert len(starts) == len(env.past) == 150, "every step once"
        for row, (before, action, reward, after, terminated, truncated) in zip(
            starts, env.past, strict=True
        ):
            np.testing.assert_array_equal(observation[row], before)
            np.testing.assert_array_equal(observation[row + 1], after)
            assert rings.action[seed, rows][row, 0] == action
            assert rings.reward[seed, rows][row] == np.float32(reward)
            assert (kind[row] == TERMINATED) == terminated
            assert (kind[row] == TRUNCATED) == (truncated and not terminated)
        ended, returns = (
            np.concatenate([np.asarray(getattr(log, name))[seed, :, copy] for log in logs])
            for name in ("ended", "returns")
        )
        np.testing.assert_allclose(returns[ended], _returns(env.past), rtol=1e-4, atol=1e-4)
    assert int(state.clock.iterations) == 150
    environment.close()


def _returns(past: list[tuple]) -> list[float]:
    total, found = 0.0, []
    for _, _, reward, _, terminated, truncated in past:
        total += reward
        if terminated or truncated:
            found.append(total)
            total = 0.0
    return found


def test_how_a_run_is_cut_does_not_change_it():
    hashes = []
    for counts in ((150,), (60, 90)):
        environment, _ = scripted(2, (0, 5))
        loop = loop_of(environment, TINY)
        run, state = loop.compile(100), loop.init(jax.random.split(jax.random.key(0), 2))
        for count in counts:
            state, _ = run(state, count)
        assert int(state.clock.updates) == 150 - 49
        hashes.append([np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state.seeds.learner)])
    assert hashes[0] == hashes[1]


class Failing(Scripted):
    """Breaks the contract at its tenth step."""

    fault: Any = None

    def __init__(self, made: list[Scripted] | None = None):
        super().__init__([] if made is None else made)

    def step(self, action: int) -> Any:
        observation, reward, _, _, info = super().step(action)
        if len(self.past) == 10:
            if self.fault == "raise":
                raise RuntimeError("the gripper is stuck")
            if self.fault == "hang":
                # Short sleeps: what waits in Python can be ended, and leaves no thread behind.
                for _ in range(600):
                    time.sleep(0.1)
            reward = np.zeros(2) if self.fault == "vector" else reward
            if self.fault == "shape":
                observation = observation[:2]
            elif self.fault == "type":
                observation = observation + 1j
        return observation, reward, False, False, info


def _step(environment: GymnasiumEnvironment, count: int) -> None:
    for _ in range(count):
        environment.send(np.zeros((1, 1, 1), np.int32))
        environment.receive()


FAULTS = [
    ("raise", ["raised at step 10 of the run", "RuntimeError: the gripper is stuck", "action ["]),
    ("hang", ["did not come back from step 10 of the run within 1 s", "action ["]),
    ("shape", ["gave an observation of shape (2,), where its space says (3,), at step 10"]),
    ("type", ["gave an observation of type complex128, where its space says float64, at step 10"]),
    ("vector", ["gave a reward of shape (2,), where one number", "a weighted sum", "at step 10"]),
]


@pytest.mark.parametrize("vector", ["sync", "async"])
@pytest.mark.parametrize(
    ("fault", "words"), FAULTS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_failing_environment_is_named_with_step_and_value(vector: str, fault: str, words: list[str]):
    kind = type("Fault", (Failing,), {"fault": fault})
    environment = GymnasiumEnvironment.of("scripted", kind, 1, vector=vector, seconds=1.0)
    environment.start()
    with pytest.raises(QhatError) as raised:
        _step(environment, 20)
    assert "'scripted'" in str(raised.value)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("vector", ["sync", "async"])
@pytest.mark.parametrize(
    ("fault", "words"), FAULTS[:2], ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_fails_inside_the_compiled_loop_reaches_its_caller(vector: str, fault: str, words: list[str]):
    kind = type("Fault", (Failing,), {"fault": fault})
    environment = GymnasiumEnvironment.of("scripted", kind, 1, vector=vector, seconds=1.0)
    loop = loop_of(environment, dataclasses.replace(ALONE, learning_starts=1_000))
    run, state = loop.compile(100), loop.init(jax.random.split(jax.random.key(0), 1))
    # Off the main thread, where Python hears no alarm.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        failed = pool.submit(run, state, 50).exception()
    assert isinstance(failed, QhatError)
    for word in ("'scripted'", *words):
        assert word in str(failed)


def test_a_run_is_left_by_who_waits_for_it():
    """Ctrl-C in a notebook: the loop ends at its next step, and does not continue without its caller."""
    environment, made = scripted(1, (0,))
    loop = loop_of(environment, dataclasses.replace(ALONE, learning_starts=10_000))
    run, state = loop.compile(1_000_000), loop.init(jax.random.split(jax.random.key(0), 1))
    state, _ = run(state, 10)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(state, 1_000_000)
    finally:
        signal.signal(signal.SIGALRM, before)
    time.sleep(0.5)
    reached = len(made[-1].past)
    time.sleep(0.3)
    assert 10 < reached == len(made[-1].past) < 1_000_000


def test_in_order_or_beside_the_update_the_same_is_learned():
    weights = []
    for vector in ("sync", "async"):
        environment = GymnasiumEnvironment.of("CartPole-v1", cartpole, 2, (0, 5), vector=vector)
        loop = loop_of(environment, TINY)
        run, state = loop.compile(200), loop.init(jax.random.split(jax.random.key(0), 2))
        state, _ = run(state, 200)
        environment.close()
        weights.append([np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state.seeds.learner.online)])
    assert weights[0] == weights[1]


def cartpole() -> gymnasium.Env:
    return gymnasium.make("CartPole-v1")


class Masked(gymnasium.Env):
    """Allows one of three actions, which changes at every step; any other action raises."""

    observation_space = gymnasium.spaces.Box(0, 3, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._say()

    def _say(self, over: bool = False) -> Any:
        self.allowed = int(self.np_random.integers(3))
        mask = np.zeros(3, np.int8)
        mask[self.allowed] = not over
        return np.array([self.allowed], np.float32), {"action_mask": mask}

    def step(self, action: int) -> Any:
        assert action == self.allowed, "an action that the mask forbids"
        self.time += 1
        terminated, truncated = self.time == 7, self.time == 5 and self.np_random.random() < 0.5
        observation, info = self._say(over=terminated)
        return observation, 1.0, terminated, truncated, info


@pytest.mark.parametrize("mode", AutoresetMode, ids=str)
def test_masks_are_obeyed_stored_and_never_another_episodes(mode: AutoresetMode, tmp_path: Path):
    """The mask follows from the observation, so each row of replay shows whether its mask is right."""
    envs = gymnasium.vector.SyncVectorEnv([Masked] * 2, autoreset_mode=mode)
    environment = GymnasiumEnvironment("masked", envs, (1, 2))
    assert environment.spec.masked
    spec, recipe = environment.spec, TINY
    loop = HostLoop(Program.of(recipe, spec.shape, spec.dtype, spec.actions, spec.masked), environment)
    state, _ = loop.compile(150)(loop.init(jax.random.split(jax.random.key(0), 1)), 150)
    ring = jax.tree.map(lambda leaf: np.asarray(leaf[0]), state.seeds.ring)
    starts = np.flatnonzero(ring.kind != NOTHING)
    shown = ring.observation[starts, 0].astype(int)
    np.testing.assert_array_equal(ring.legal[starts, 0], np.eye(3, dtype=bool)[shown])
    np.testing.assert_array_equal(ring.action[starts, 0], shown)
    cut = np.flatnonzero(ring.kind == TRUNCATED) + 1
    assert len(cut) > 5
    shown = ring.observation[cut, 0].astype(int)
    np.testing.assert_array_equal(
        ring.legal[cut, 0], np.eye(3, dtype=bool)[shown], "the last one's own mask"
    )
    environment.close()
    if mode is AutoresetMode.NEXT_STEP:
        config = TrainConfig("", recipe=recipe, run_dir=tmp_path / "run", steps=200, eval_episodes=2)
        run = train(Masked, config)
        assert set(evaluate(run, episodes=4, env=Masked).per_seed) <= {5.0, 5.5, 6.0, 6.5, 7.0}, (
            "evaluation obeys too"
        )


def test_environments_of_the_caller_train(tmp_path: Path):
    def config(name: str, **settings: Any) -> TrainConfig:
        return TrainConfig(
            "",
            recipe=dataclasses.replace(ALONE, **settings),
            run_dir=tmp_path / name,
            steps=200,
            eval_episodes=2,
        )

    def build() -> gymnasium.Env:
        return gymnasium.make("CartPole-v1", max_episode_steps=20)

    run = train(build, config("function"))
    assert run.spec.id == "own:CartPole-v1"
    assert (np.asarray(evaluate(run, episodes=3, env=build).per_seed) <= 20).all(), (
        "what is handed over is played"
    )
    with pytest.raises(UsageError, match="handed over from Python"):
        evaluate(run, episodes=3)
    single = build()
    assert train(single, config("single")).summary()["step"] == 200
    vector = gymnasium.make_vec("CartPole-v1", num_envs=2)
    assert train(vector, config("vector", num_envs=2), judge=build).summary()["step"] == 200
    with pytest.raises(UsageError, match="plays the training alone; expected judge="):
        train(vector, config("none", num_envs=2))
    with pytest.raises(UsageError, match="has 2 copies; expected 4"):
        train(vector, config("copies", num_envs=4), judge=build)
    with pytest.raises(UsageError, match="a function that makes one"):
        train(single, config("two", num_envs=2))
    assert not (tmp_path / "none").exists(), "nothing was written"
    lying = gymnasium.vector.SyncVectorEnv([build] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    lying.metadata = {**lying.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
    with pytest.raises(UsageError, match="autoreset"):
        train(lying, config("lie", num_envs=2), judge=build)
    envs = gymnasium.make_vec("CartPole-v1", num_envs=1)
    envs.metadata = {**envs.metadata, "autoreset_mode": None}
    with pytest.raises(UsageError, match=r"expected one of AutoresetMode\.NEXT_STEP"):
        train(envs, config("mode"), judge=build)


def test_a_gymnasium_run_trains_stops_goes_on_and_is_judged(tmp_path: Path):
    def config(name: str, **settings: Any) -> TrainConfig:
        return TrainConfig(
            "gym:CartPole-v1", recipe=ALONE, run_dir=tmp_path / name, seeds=2, eval_every=300,
            eval_episodes=2, save_every=300, **{"steps": 600, **settings},
        )  # fmt: skip

    hashes = []
    for name in ("one", "two"):
        train("gym:CartPole-v1", config(name, steps=300))
        run = train("gym:CartPole-v1", config(name, resume=True))
        hashes.append(run.weights_sha256())
    assert hashes[0] == hashes[1]
    # At which step a stop is heard is a matter of time.
    with pytest.raises(Interrupted):
        train("gym:CartPole-v1", config("stopped"), should_stop=lambda: True)
    assert train("gym:CartPole-v1", config("stopped", resume=True)).summary()["step"] == 600
    assert run.spec.backend == "gym"
    score = evaluate(run, episodes=3)
    assert score.env == "gym:CartPole-v1"
    assert (np.asarray(score.per_seed) >= 8).all()


def test_gymnasium_ids():
    assert find("gym:CartPole-v1").backend == "gym"
    assert find("Taxi-v4").backend == "gym", "only Gymnasium has it"
    assert find("Taxi-v4").id == "Taxi-v4"
    assert find("gym:CartPole-v1").id == "gym:CartPole-v1"
    for env_id, words in (
        ("gym:CartPol-v1", "is not known.*Did you mean 'CartPole-v"),
        ("gym:CartPole-v99", "CartPole"),
        ("gym:no_such_module:Env-v0", "no_such_module"),
    ):
        with pytest.raises(UsageError, match=words):
            find(env_id)


class Loose(gymnasium.ObservationWrapper):
    """Does not record its arguments, as many third-party wrappers do not."""

    def observation(self, observation: Any) -> Any:
        return observation


@pytest.mark.parametrize("how", ["wrapper without a record", "not registered"])
def test_one_that_cannot_be_made_again_says_what_helps(tmp_path: Path, how: str):
    made = gymnasium.make("CartPole-v1")
    env: Any = Loose(made) if how.startswith("wrapper") else made.unwrapped
    if how == "not registered":
        env.spec = None
    settings = {"recipe": ALONE, "steps": 50, "eval_episodes": 1}
    with pytest.raises(UsageError, match=r"made again for the run's evaluations.*; expected a function"):
        train(env, config=TrainConfig("", **settings, run_dir=tmp_path / "refused"))
    assert not (tmp_path / "refused").exists(), "nothing was written"
    judged = TrainConfig("", **settings, run_dir=tmp_path / "run")
    assert train(env, config=judged, judge=lambda: gymnasium.make("CartPole-v1")).summary()["step"] == 50
