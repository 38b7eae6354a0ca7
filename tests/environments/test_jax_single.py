"""A single environment in JAX: qhat makes the batch, resets, limits and masks; mistakes are sentences."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import command_line
import qhat
from places import ROOT
from qhat.environments.contract import require_contract
from qhat.environments.jax.batch import JaxBatch
from qhat.environments.make import make
from qhat.environments.user_envs import source_of
from qhat.system.errors import UsageError
from tiny import TINY

PAGE = ROOT / "docs" / "environments.md"


def documented() -> str:
    """The example of the page."""
    (source,) = re.findall(
        r"```python\n(# my_walk.py\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    return source


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example of the page, as a module that can be imported."""
    (tmp_path / "my_walk.py").write_text(documented(), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_walk", raising=False)
    import my_walk  # pyright: ignore[reportMissingImports]

    return my_walk.Walk


class Maze(qhat.JaxEnvironment):
    """Three joints and a dictionary; action 0 of each joint is illegal where the counter is odd."""

    observation_space = gymnasium.spaces.Dict(
        {"count": gymnasium.spaces.Discrete(5), "place": gymnasium.spaces.Box(-1, 1, (2,), np.float32)}
    )
    action_space = gymnasium.spaces.MultiDiscrete([2, 2, 2])

    def __init__(self, limit: int = 0, masked: bool = True):
        self.limit, self.masked = limit, masked

    def reset(self, key):
        state = {"count": 0, "place": jax.random.uniform(key, (2,)), "key": key}
        return state, self._observed(state)

    def step(self, state, action, key):
        state = {"count": state["count"] + 1, "place": -state["place"], "key": key}
        return state, self._observed(state), jnp.sum(action), state["count"] >= 4

    def action_mask(self, state):
        if not self.masked:
            return None
        return jnp.ones((3, 2), bool).at[:, 0].set(state["count"] % 2 == 0)

    def _observed(self, state):
        return {"count": state["count"], "place": state["place"]}


def test_the_page_has_fifteen_lines() -> None:
    body = documented().partition("class ")[2].strip().splitlines()
    assert len([line for line in body if line.strip()]) <= 15


def test_the_example_of_the_page_trains_and_is_evaluated_and_exported(walk, tmp_path: Path) -> None:
    run = qhat.train(walk(), recipe=TINY, steps=400, run_dir=tmp_path / "run", eval_every=200)
    assert run.spec.id == "own:Walk"
    assert qhat.evaluate(run, env=walk(), episodes=3).mean_return in (0.0, 1.0)
    made = qhat.export(run, env=walk(), out=tmp_path / "export")
    assert made.parity["passed"]


def test_the_example_has_an_id(walk, tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    settings = ["--steps", "200", "--eval-every", "200", "--hidden", "8", "--run-dir", folder]
    assert command_line.qhat("train", "jax:my_walk:Walk", *settings).returncode == 0
    assert qhat.Run.open(folder).spec.id == "jax:my_walk:Walk"
    done = command_line.qhat("evaluate", folder, "--episodes", "2", "--json")
    assert json.loads(done.stdout)["env"] == "jax:my_walk:Walk"


def test_steps_are_those_of_the_single_environment(walk) -> None:
    """Against a loop over one copy: truncation, the true successor, the reset in the same step."""
    batch, single = JaxBatch(walk(), 3), walk()
    state, observation = batch.reset(jax.random.key(0))
    places, times = np.zeros(3), np.zeros(3, int)
    step = jax.jit(batch.step)
    for turn in range(70):
        choices = np.array([1, turn % 2, 0])
        state, now = step(state, jnp.asarray(choices, jnp.int32)[:, None], jax.random.key(turn))
        for copy in range(3):
            _, after, reward, ended = single.step(observation[copy], int(choices[copy]), None)
            times[copy] += 1
            late = times[copy] == 30 and not ended
            np.testing.assert_allclose(now.successor[copy], after, atol=1e-6)
            assert (now.reward[copy], now.terminated[copy], now.truncated[copy]) == (reward, ended, late)
            over = bool(ended) or late
            places[copy], times[copy] = (0.0, 0) if over else (after[0], times[copy])
            assert np.isclose(now.observation[copy, 0], places[copy], atol=1e-6)
        observation = now.observation
    assert batch.spec.limit == 30


def test_a_batch_keeps_the_contract(walk) -> None:
    for single in (walk(), Maze(), Maze(limit=3, masked=False)):
        require_contract(JaxBatch(single, 4))


def test_dictionaries_joints_and_masks_are_read() -> None:
    batch = JaxBatch(Maze(), 2)
    assert batch.spec.shape == (7,)  # five of Discrete, two of Box
    assert batch.spec.actions.choices == (2, 2, 2)
    assert batch.spec.masked
    state, observation = batch.reset(jax.random.key(1))
    np.testing.assert_array_equal(np.asarray(observation)[:, :5].argmax(axis=1), 0)
    assert not np.array_equal(observation[0], observation[1])
    legal = batch.legal(state)
    assert legal is not None
    assert bool(legal.all())
    _, now = jax.jit(batch.step)(state, jnp.ones((2, 3), jnp.int32), jax.random.key(2))
    assert now.legal.shape == (2, 3, 2)
    assert not now.legal_successor[:, :, 0].any()
    np.testing.assert_array_equal(now.reward, 3.0)


def broken(**parts: Any) -> qhat.JaxEnvironment:
    """An environment with some of its parts replaced."""

    def reset(self, key):
        return jnp.zeros(2), jnp.zeros(2)

    def step(self, state, action, key):
        return state, state, jnp.float32(0.0), state[0] > 1

    usual = {"observation_space": (2,), "action_space": 2, "reset": reset, "step": step}
    return type("Broken", (qhat.JaxEnvironment,), {**usual, **parts})()


def asks(self, state, action, key):
    if state[0] > 1:
        return state, state, 1.0, True
    return state, state, 0.0, False


def does(function: Any) -> dict[str, Any]:
    """A step that depends on the state alone."""
    return {"step": lambda self, state, action, key: function(state)}


NAN = (jnp.zeros(2), jnp.full(2, jnp.nan))
MISTAKES = [
    ({"step": asks}, r"step asks a traced array for its value \(.*test_jax_single.py:\d+\).*jnp.where"),
    (does(lambda s: (s, s, jnp.zeros(1), s[0] > 1)), r"reward is \(1,\) of float32; .*reward\[0\]"),
    (does(lambda s: (s, s, 0.0, jnp.float32(0))), "terminated is .* of float32; expected a bool"),
    (does(lambda s: (s, s, 0.0, s[0] > 1, False)), "5 values; expected 4: .*`limit = N`"),
    (does(lambda s: (s.astype(int), s, 0.0, s[0] > 1)), "of float32 from reset and .* of int32"),
    (does(lambda s: ((s, s), s, 0.0, s[0] > 1)), "expected the same structure"),
    (does(lambda s: (s, jnp.zeros(3), 0.0, s[0] > 1)), r"observation is \(3,\) of float32; expected"),
    (does(lambda s: s["x"]), r"step fails \(.*, at .*test_jax_single.py:\d+\)"),
    ({"reset": lambda self, key: jnp.zeros(2)}, "reset returns one .*; expected 2: state, observation"),
    ({"reset": lambda self, key: NAN}, "reset's observation is .*nan.*; expected finite"),
    ({"observation_space": None}, "observation_space is None; expected a shape"),
    ({"action_space": 0}, "action_space is 0; expected a number of actions"),
    ({"limit": 2.5}, "limit is 2.5; expected a number of steps"),
    ({"action_mask": lambda self, state: jnp.ones(3, bool)}, r"gives \(3,\) of bool; expected \(2,\)"),
]


@pytest.mark.parametrize(("parts", "sentence"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_a_sentence_before_anything_is_written(parts, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=sentence):
        qhat.train(broken(**parts), recipe=TINY, steps=100, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_is_not_an_environment(walk) -> None:
    with pytest.raises(UsageError, match=r"env is the class Walk; expected an environment: Walk\(\)"):
        source_of(walk)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("jax:my_walk:Wakl", "has no environment 'Wakl'.*: Walk. Did you mean 'Walk'"),
        ("jax:my_walk", "names no class; expected jax:my_module:MyEnv"),
        ("jax:no_such_module:Walk", "module 'no_such_module' is not found"),
    ],
)
def test_an_id_that_names_nothing_is_a_sentence(walk, name: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make(name, 1)


def test_options_are_arguments_of_the_class(walk) -> None:
    with pytest.raises(UsageError, match=r"cannot be made with {'speed': 2}"):
        make("jax:my_walk:Walk", 1, options={"speed": 2})
