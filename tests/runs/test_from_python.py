"""Environments from Python: no other environment is scored instead, and the contract is checked."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from tiny import TINY_DQN
import qhat
from probes import Probes
from qhat import recipes
from qhat.axes.actions import Actions
from qhat.cli import evaluate as evaluate_command
from qhat.cli import export as export_command
from qhat.cli import play as play_command
from qhat.cli import train as train_command
from qhat.environments.base import Environment, Spec, Timestep
from qhat.environments.contract import look, require_contract
from qhat.environments.gymnasium.successors import Rows, replaced
from qhat.recipes.config import TrainConfig
from qhat.reports.comparison.reading import read_entrants
from qhat.reports.measure import measure
from qhat.runs.folder import RunFolder
from qhat.system.errors import UsageError



class Walk(Environment):
    """Go right to 1, 30 steps at most."""

    def __init__(self, num_envs: int = 1, env_id: str = "CartPole-v1", mistake: Any = None, **spec: Any):
        self.num_envs, self.mistake = num_envs, mistake
        self.spec = Spec(env_id, "mine", (4,), "float32", Actions((2,)), **spec)

    def see(self, state: Any) -> Any:
        return jnp.pad(state, ((0, 0), (0, 2)))

    def reset(self, key: Any) -> Any:
        state = jnp.zeros((self.num_envs, 2))
        return state, self.see(state)

    def step(self, state: Any, action: Any, key: Any) -> Any:
        new = jnp.stack([state[:, 0] + 0.1 * (2 * action[:, 0] - 1), state[:, 1] + 1], 1)
        reached, late = new[:, 0] >= 1, new[:, 1] >= 30
        after = jnp.where((reached | late)[:, None], 0.0, new)
        successor = self.see(after if self.mistake == "successor" else new)
        real, won = jnp.ones(self.num_envs, bool), reached.astype(jnp.float32)
        now = Timestep(self.see(after), won, reached, late & ~reached, successor, real)
        return self.mistake(after, now) if callable(self.mistake) else (after, now)


def with_field(name: str, value: Any) -> Any:
    """Return a function that puts a mistake into a field."""

    def mistake(state: Any, now: Timestep) -> Any:
        old = getattr(now, name)
        new = value(now.reward if old is None else old)
        return state, eqx.tree_at(
            lambda step: getattr(step, name), now, new, is_leaf=lambda leaf: leaf is None
        )

    return mistake


MISTAKES = {
    "`reward` has shape (3, 1) and dtype float32; expected (3,) of float32": with_field(
        "reward", lambda value: value[:, None]
    ),
    "`reward` has shape (3,) and dtype int32; expected (3,) of float32": with_field(
        "reward", lambda value: value.astype(jnp.int32)
    ),
    "`terminated` has shape (3,) and dtype float32; expected (3,) of bool": with_field(
        "terminated", lambda value: value.astype(jnp.float32)
    ),
    "`truncated` has shape () and dtype bool": with_field("truncated", lambda value: value.any()),
    "`real` is None": with_field("real", lambda value: None),
    "`observation` has shape (3, 3)": with_field("observation", lambda value: value[:, :3]),
    "`successor` has shape (3, 4) and dtype bfloat16": with_field(
        "successor", lambda value: value.astype(jnp.bfloat16)
    ),
    "`score` has shape (1,)": with_field("score", lambda value: value[:1]),
    "spec.masked is False": with_field("legal", lambda value: jnp.ones((3, 1, 2), bool)),
    "step returns a state and a dict": lambda state, now: (state, {}),
    "step returns 3 values": None,
    "state is (3, 2) of float32 from reset and (3, 1) of float32 from step": lambda state, now: (
        state[:, :1],
        now,
    ),
}


def test_a_step_of_a_wrong_shape_is_refused_in_a_sentence(tmp_path: Path):
    for words, mistake in MISTAKES.items():
        walk = Walk(3, "Walk-v0", mistake)
        if mistake is None:
            plain = walk.step
            walk.step = lambda *given, plain=plain: (*plain(*given), 0)  # pyright: ignore
        with pytest.raises(UsageError) as raised:
            require_contract(walk)
        said = str(raised.value)
        assert said.startswith("'own:Walk-v0': "), said
        assert words in said, said
        assert "expected" in said, said
    with pytest.raises(UsageError, match="`reward` has shape"):
        qhat.train(
            Walk(1, "Walk-v0", with_field("reward", lambda value: value[:, None])), run_dir=tmp_path / "a"
        )
    assert not (tmp_path / "a").exists(), "nothing was written"


def test_a_successor_of_the_next_episode_is_refused():
    with pytest.raises(UsageError, match=r"'own:Walk-v0': `successor` is the next .*no other step goes"):
        require_contract(Walk(1, "Walk-v0", "successor"))
    assert require_contract(Walk(1, "Walk-v0")) == 30, "a right one's limit is seen"
    rows, starts = look(Probes(2))
    assert rows.same[rows.ends].all(), "the last observation looks like the first, and rightly so"
    assert replaced(rows, starts) == ""


def rows_of(start: Any, step: Any, limit: int, wrong: bool, turns: int = 400, copies: int = 3) -> Any:
    """Play a NumPy environment: `start(rng)`, `step(state, action, rng)` to a state and an end."""
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {field.name: [] for field in dataclasses.fields(Rows)}
    states, ages = [start(rng) for _ in range(copies)], [0] * copies
    for _ in range(turns):
        row: dict[str, Any] = {name: [] for name in fields}
        for copy in range(copies):
            before, action = states[copy], int(rng.integers(2))
            after, over = step(before, action, rng)
            ages[copy] += 1
            cut = ages[copy] == limit and not over
            shown = after
            if over or cut:
                shown, ages[copy] = start(rng), 0
            states[copy] = shown
            successor = shown if wrong else after
            arrays = [np.atleast_1d(np.asarray(one, float)) for one in (before, successor, shown)]
            place, choice, reached = (
                hash(one) for one in (arrays[0].tobytes(), (arrays[0].tobytes(), action), arrays[1].tobytes())
            )
            same = np.array_equal(arrays[1], arrays[2])
            record = (*arrays, same, place, choice, reached, over, cut, True)
            for name, value in zip(row, record, strict=True):
                row[name].append(value)
        for name, value in row.items():
            fields[name].append(value)
    starts = np.array([np.atleast_1d(np.asarray(start(rng), float)) for _ in range(32)])
    return Rows(**{name: np.array(value) for name, value in fields.items()}), starts


def one_hot(place: int) -> np.ndarray:
    return np.eye(12)[place]


def corridor(state: np.ndarray, action: int, rng: Any) -> Any:
    return one_hot(min(max(int(state.argmax()) + 2 * action - 1, 0), 11)), False


def ring(size: int) -> Any:
    """A step always moves to the next place: after `size` steps it is rightly back at its start."""
    return lambda state, action, rng: (one_hot((int(state.argmax()) + 1) % size), False)


def drift(state: np.ndarray, action: int, rng: Any) -> Any:
    after = state + 0.2 * (2 * action - 1) + 0.01 * rng.normal(size=2)
    return after, bool(np.abs(after).max() > 1)


def anew(rng: Any) -> np.ndarray:
    return 0.05 * rng.normal(size=2)


def home(rng: Any) -> np.ndarray:
    return np.zeros(2)


CASES: dict[str, tuple[Any, Any, int, bool, str]] = {
    "starts are drawn": (anew, drift, 0, True, "drawn anew"),
    "the same, right": (anew, drift, 0, False, ""),
    "a tabular corridor, cut": (lambda rng: one_hot(0), corridor, 25, True, "lead elsewhere"),
    "the same, right ": (lambda rng: one_hot(0), corridor, 25, False, ""),
    "a ring, cut where it begins": (lambda rng: one_hot(0), ring(6), 6, False, ""),
    "a ring that terminates there": (
        lambda rng: one_hot(0), lambda state, *_: (one_hot(int(state.argmax() + 1) % 6), state[5] == 1), 0,
        False, "",
    ),
    "crashed robots are put back, which ends an episode": (
        home, lambda state, action, rng: (np.zeros(2), True) if drift(state, action, rng)[1]
        else drift(state, action, rng), 0, False, "",
    ),
    "every observation is drawn": (
        lambda rng: rng.normal(size=2), lambda state, action, rng: (rng.normal(size=2), False), 7, True, "",
    ),
    "one state": (home, lambda state, action, rng: (state, False), 3, False, ""),
    "a clock that starts over": (
        home, lambda state, action, rng: (state + np.array([1.0, 0.0]), False), 9, True, "as far",
    ),
    "bandits": (anew, lambda state, action, rng: (anew(rng), True), 0, True, ""),
}  # fmt: skip


def test_what_can_be_known_of_a_successor_is_known_and_nothing_else_refused():
    for name, (start, step, limit, wrong, words) in CASES.items():
        why = replaced(*rows_of(start, step, limit, wrong))
        assert words in why if words else why == "", f"{name}: {why!r}"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walk") / "run"
    config = TrainConfig("", "dqn", TINY_DQN, steps=200, eval_every=100, eval_episodes=1, run_dir=folder)
    qhat.train(Walk(), config)
    return folder


def refuses(path: Path) -> None:
    """Every command says how to continue in Python, and none uses CartPole instead."""
    for command, verb in (
        (evaluate_command, "evaluate"),
        (play_command, "play"),
        (export_command, "export"),
    ):
        with pytest.raises(UsageError, match=rf"'own:CartPole-v1' was handed.*qhat\.{verb}\('.*', env="):
            command.run([str(path)])
    for call in (qhat.evaluate, qhat.play, qhat.export):
        with pytest.raises(
            UsageError, match=rf"was handed over from Python.*qhat\.{call.__name__}\(run, env="
        ):
            call(path)
    with pytest.raises(UsageError, match=r"'own:CartPole-v1' was handed.*qhat\.train\(env, run_dir="):
        train_command.run(["CartPole-v1", "--recipe", "dqn", "--resume", "--run-dir", str(path)])
    assert read_entrants([path], False)[0][0].env == "own:CartPole-v1", "it is compared with its like alone"


def test_a_jax_environment_is_never_scored_as_somebody_elses(ran: Path, tmp_path: Path):
    refuses(ran)
    measured = measure(ran, films=False)
    assert measured.score is None
    assert measured.diagnosis is None
    assert "qhat.evaluate(run, env=...)" in measured.why["score"]
    score = qhat.evaluate(ran, env=Walk(4))
    assert (score.env, score.mean_length is not None and score.mean_length <= 30) == (
        "own:CartPole-v1",
        True,
    )
    card = (ran / "README.md").read_text()
    assert "env=..." in card
    assert "qhat train" not in card
    with pytest.raises(UsageError, match="no id makes it again"):
        qhat.train("own:CartPole-v1")
    # A run from before there were marks.
    config = json.loads((ran / "config.json").read_text())
    config["env"] = config["spec"]["id"] = "CartPole-v1"
    (ran / "config.json").write_text(json.dumps(config))
    refuses(ran)
    again = TrainConfig(
        "", "dqn", TINY_DQN, steps=300, eval_every=100, eval_episodes=1, run_dir=ran, resume=True
    )
    assert qhat.train(Walk(), again).summary()["step"] == 300
    written = RunFolder(ran).read_config()
    assert written["env"] == written["spec"]["id"] == "own:CartPole-v1"


def test_a_spec_of_python_has_no_reference():
    from qhat.environments.user_envs import source_of, spec_of

    walk = Walk(1, "CartPole-v1", reference="CartPole-v1")
    assert spec_of(walk).reference is None
    assert source_of(walk).name == "own:CartPole-v1"
    with gymnasium.make("CartPole-v1", max_episode_steps=7) as made:
        assert source_of(made).name == "own:CartPole-v1"
        assert spec_of(made).reference is None
