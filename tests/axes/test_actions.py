"""One codec of actions: policies, exports, agents and recordings use the numbers of the environment.

Protects against a policy that is trained right and deployed with actions that are off by the space's
`start`, or flat where the environment takes another shape.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from hypothesis import given, settings
from hypothesis import strategies as st

import qhat
from inside import state_of
from qhat import recipes, runtime
from qhat.agent.agent import Agent
from qhat.agent.arguments import read_action, read_actions
from qhat.axes.actions import Actions
from qhat.axes.torso import MLP
from qhat.deploy import graph
from qhat.deploy.about import read_safe_action
from qhat.deploy.parity import equal_actions
from qhat.engine.described import read_network
from qhat.engine.learner import Learner
from qhat.environments.base import Spec
from qhat.environments.spaces import contained
from qhat.evaluation.deployed_policy import Policy
from qhat.runs.run import Run
from qhat.system.errors import UnfitActionError, UsageError

SPACES = [
    Discrete(3, start=1),
    Discrete(3, start=-1, dtype=np.int8),
    MultiDiscrete([3, 4], start=[-1, 2]),
    MultiDiscrete(np.array([[2, 3], [4, 2]])),
    MultiDiscrete([4], start=[7]),
    MultiBinary(3),
    MultiBinary((2, 2)),
    Box(-1.0, 1.0, (2, 2), np.float32),
    Box(-2.0, 2.0, (), np.float64),
    Box(0, 7, (2, 1), np.int16),
]
REFUSED = [
    (
        Box(-np.inf, np.inf, (2,)),
        r"joint 0 takes actions from -inf to inf|\(2,\), float32\), where a joint has no bounds",
    ),
    (
        Box(np.array([0, -np.inf]), np.array([1, 1]), dtype=np.float64),
        r"joint 1 takes actions from -inf|float64\), where a joint has no bounds",
    ),
    (Dict(move=Discrete(3)), r"has actions Dict\(.*expected Discrete, MultiDiscrete, MultiBinary or Box"),
    (Tuple((Discrete(3),)), r"has actions Tuple\(.*expected Discrete, MultiDiscrete, MultiBinary or Box"),
    (Discrete(2_000_000), r"choices are \(2000000,\); expected at most"),
]
WIDTH = 3
RECIPE = dataclasses.replace(recipes.dqn, hidden=(), torso=MLP(), replay_capacity=64, num_envs=1)


@st.composite
def spaces(draw: st.DrawFn) -> gymnasium.Space:
    kind = draw(st.sampled_from([Discrete, MultiDiscrete, MultiBinary, Box]))
    shape = draw(st.lists(st.integers(1, 3), min_size=0 if kind is Box else 1, max_size=3).map(tuple))
    least = st.integers(-9, 100)
    if kind is Discrete:
        dtype = draw(st.sampled_from([np.int8, np.int32, np.int64]))
        return Discrete(draw(st.integers(1, 9)), start=draw(least), dtype=dtype)
    if kind is MultiBinary:
        return MultiBinary(shape)
    size = int(np.prod(shape))
    low = np.array(draw(st.lists(least, min_size=size, max_size=size)), np.int64).reshape(shape)
    more = np.array(draw(st.lists(st.integers(1, 20), min_size=size, max_size=size))).reshape(shape)
    if kind is MultiDiscrete:
        return MultiDiscrete(more, start=low)
    dtype: Any = draw(st.sampled_from([np.float16, np.float32, np.float64, np.int16, np.uint8, np.int64]))
    if dtype is np.uint8:
        low = np.abs(low)
    scale = draw(st.sampled_from([1.0, 0.1])) if np.dtype(dtype).kind == "f" else 1
    return Box((scale * low).astype(dtype), (scale * (low + more)).astype(dtype), dtype=dtype)


@given(spaces(), st.integers(2, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_choices_are_actions_of_the_space_and_back(space: Any, bins: int, seed: int):
    actions = Actions.of(space, "it", (bins,))
    choice = np.random.default_rng(seed).integers(actions.choices, size=(2, 3, actions.factors))
    sent = actions.to_env(choice)
    assert sent.shape == (2, 3, *space.shape)
    assert sent.dtype == space.dtype
    np.testing.assert_array_equal(actions.from_env(sent), choice)
    alone = actions.to_env(choice[0, 0])
    assert space.contains(alone)
    assert type(alone) is (int if isinstance(space, Discrete) else np.ndarray)
    np.testing.assert_array_equal(actions.from_env(alone), choice[0, 0])
    np.testing.assert_array_equal(read_action(alone, actions), choice[0, 0])
    read = Actions.from_json(json.loads(json.dumps(actions.to_json())))
    assert (read, read.dtype, read.complete) == (actions, actions.dtype, True)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_every_deployed_policy_returns_actions_of_the_space(space: Any):
    actions = Actions.of(space, "it")
    learner = Learner.of(RECIPE, (WIDTH,), actions)
    parameters = learner.init_parameters(jax.random.key(1))
    policy = Policy(learner, parameters, Spec("it", "own", (WIDTH,), "float32", actions))
    exported = read_network(learner, parameters, "float32", None)
    model = graph.build(exported, (WIDTH,), "float32", actions, False, {"name": "x"})
    session = runtime.open_graph(model.SerializeToString())
    runner = runtime.Policy(
        about_of(actions, exported.ops), runtime.planned(exported.ops, exported.tensors), False
    )
    observations = np.random.default_rng(0).normal(size=(20, WIDTH)).astype(np.float32)
    expected = actions.to_env(
        np.stack([policy.q_values(row).reshape(actions.factors, -1) for row in observations]).argmax(-1)
    )
    assert len(np.unique(expected.reshape(20, -1), axis=0)) > 1
    assert equal_actions(session.run(["action"], {"observation": observations})[0], expected).all()
    taken: Any = None
    for row, action in zip(observations, expected, strict=True):
        for act in (policy, runner.act):
            taken = act(row)
            assert space.contains(taken)
            assert type(taken) is (int if isinstance(space, Discrete) else np.ndarray)
            np.testing.assert_array_equal(taken, action)
    np.testing.assert_array_equal(contained(expected, space), expected)
    robot = runtime.Runner(runner, safe_action=taken, timeout=1.0, safety=lambda action: action)
    np.testing.assert_array_equal(robot.command(), taken)
    np.testing.assert_array_equal(robot.act(observations[-1]), taken)
    assert robot.reason == ""


def about_of(actions: Actions, ops: list) -> dict[str, Any]:
    kind = "joints" if actions.commands else "multi_discrete" if actions.vector else "discrete"
    described = {**actions.to_json(), "kind": kind, "masked": False}
    observation = {"shape": [WIDTH], "dtype": "float32", "low": [None], "high": [None], "names": None}
    return {
        "observation": observation,
        "actions": described,
        "network": ops,
        "safe_action": None,
        "timeout": None,
    }


def test_an_agent_acts_and_remembers_in_the_spaces_numbers():
    space = Discrete(3, start=5)
    agent = Agent(WIDTH, space, RECIPE, batch_size=4, learning_starts=0)
    observation = np.ones(WIDTH, np.float32)
    taken = [agent.act(observation) for _ in range(20)]
    assert set(taken) == {5, 6, 7}
    assert agent.act(observation, explore=False) == 5 + agent.q_values(observation).argmax()
    for action in taken:
        agent.remember(observation, action, 1.0, observation.copy(), False)
    stored = np.asarray(state_of(agent).ring.action)
    np.testing.assert_array_equal(stored[:20, 0], np.array(taken) - 5)
    with pytest.raises(UsageError, match="action is 2; expected a whole number from 5 to 7"):
        agent.remember(observation, 2, 1.0, observation, False)


@pytest.mark.parametrize(("space", "words"), REFUSED, ids=str)
def test_an_agent_refuses_what_training_refuses(space: Any, words: str):
    for read in (read_actions, lambda space: Actions.of(space, "Environment 'x'")):
        with pytest.raises(UsageError, match=words):
            read(space)


def test_actions_of_an_older_version_take_the_environments_start():
    space = MultiDiscrete(np.array([[3, 2]]), start=np.array([[1, -1]]))
    ours = Actions.of(space, "it")
    old = Actions.from_json({"choices": [3, 2], "commands": None})
    assert (old.start, old.shape, old.complete) == ((0, 0), (2,), False)
    assert Actions.from_json(old.to_json()) == old
    assert old.same(ours)
    assert ours.same(old)
    assert old.completed(ours) == ours
    assert not Actions((3, 2)).same(ours), "both say where they start"
    assert Actions((3, 2), None, "int64", (1, -1)).same(ours), "only the shape is another one"
    spec = Spec("it", "own", (2,), "float32", old)
    now = dataclasses.replace(spec, actions=ours)
    now.require_fits(spec)
    assert spec.completed(now) == now
    with pytest.raises(UsageError, match=r"actions \(3, 2\) starting at \(1, -1\); the policy takes"):
        now.require_fits(dataclasses.replace(spec, actions=Actions((3, 2))))
    listed = Actions.from_json({"choices": [4], "commands": None, "listed": True})
    assert Actions.from_json(listed.to_json()).shape == (4 - 3,)


@pytest.mark.parametrize(
    "change",
    [
        {"start": None}, {"start": [0]}, {"start": ["1", 0]}, {"start": [1.5, 0]}, {"start": [2**63, 0]},
        {"shape": None}, {"shape": [3]}, {"shape": [-1, -2]}, {"shape": [1] * 40 + [2]}, {"dtype": "bool"},
        {"dtype": "int8", "start": [127, 0]}, {"dtype": "O"}, {"commands": [[0.0, 1.0], [0.0, 1.0]]},
    ],
    ids=str,
)  # fmt: skip
def test_actions_that_were_damaged_are_refused(change: dict):
    written = {"choices": [2, 2], "commands": None, "dtype": "int64", "start": [1, 0], "shape": [2]}
    assert Actions.from_json(written).start == (1, 0)
    with pytest.raises((KeyError, TypeError, ValueError)):
        Actions.from_json({**written, **change})


def test_a_safe_action_is_one_of_the_environments():
    described = about_of(Actions.of(Discrete(3, start=1), "it"), [])["actions"]
    assert read_safe_action({"actions": described}, (3.0,)) == 3
    with pytest.raises(UsageError, match=r"safe_action is .*0.*; expected whole numbers from 1 to 3"):
        read_safe_action({"actions": described}, 0)
    described = about_of(Actions.of(MultiDiscrete(np.array([[2, 3]]), start=np.array([[1, 2]])), "it"), [])[
        "actions"
    ]
    assert read_safe_action({"actions": described}, (2, 4)) == [[2, 4]]
    with pytest.raises(UsageError, match=r"expected whole numbers from \[1, 2\] to \[2, 4\]"):
        read_safe_action({"actions": described}, (0, 4))


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (Discrete(3, start=1), [0]),
        (Discrete(3), [3]),
        (MultiBinary((2, 2)), [[0, 1, 1, 0]]),
        (Box(-1.0, 1.0, (1,), np.float32), [[1.5]]),
        (Box(0, 3, (1,), np.int32), [[1.5]]),
    ],
    ids=str,
)
def test_what_a_space_does_not_contain_is_no_action(space: Any, action: list):
    with pytest.raises(UnfitActionError, match=r"^actions of "):
        contained(np.array(action), space)


@pytest.mark.parametrize(
    ("fields", "safe", "action"),
    [
        ({"kind": "discrete", "choices": [3], "start": [1]}, 1, 2),
        ({"kind": "multi_discrete", "choices": [3, 2], "start": [1, -1]}, [2, 0], [3, -1]),
        ({"kind": "discrete", "choices": [3]}, 1, 1),
    ],
    ids=str,
)
def test_a_folder_of_an_older_version_is_read_with_its_start(fields: dict, safe: Any, action: Any):
    """Such a folder has the start of its actions but not their shape, and counts its safe action from 0."""
    outputs = sum(fields["choices"]) + 1
    fields = {**fields, "commands": None, "dtype": "int64", "masked": False}
    about = {
        **about_of(Actions((2,)), [{"op": "flatten"}]),
        "actions": fields,
        "safe_action": safe,
        "timeout": 1.0,
    }
    q = np.where(np.arange(outputs) % 3 == 1, 1.0, 0.0)[: len(fields["choices"]) * 3]
    policy = runtime.Policy(about, lambda x, kept, fresh: (q, kept), False)
    taken = policy.act(np.zeros(WIDTH))
    np.testing.assert_array_equal(taken, np.add(1, fields.get("start", 0))[()] if "start" in fields else 1)
    np.testing.assert_array_equal(runtime.Runner(policy).command(), action)


def test_a_run_of_an_earlier_version_acts_in_its_environments_numbers(tmp_path: Path) -> None:
    """Its config.json has no start; evaluation took the environment's, and the policy 0."""
    import quirks  # noqa: F401 - registers them

    small = dataclasses.replace(recipes.get("dqn"), hidden=(8,), learning_starts=16, batch_size=16)
    settings: dict[str, Any] = {"recipe": small, "steps": 30, "eval_every": 30, "eval_episodes": 1}
    run = qhat.train("gym:quirks:StartsAtOne-v0", run_dir=tmp_path / "run", **settings)
    observation, path = np.zeros(2, np.float32), run.folder.config
    expected = run.policy()(observation)
    config = json.loads(path.read_text())
    for name in ("start", "shape"):
        del config["spec"]["actions"][name]
    path.write_text(json.dumps(config))
    old = Run.open(run.folder.path)
    assert not old.spec.actions.complete
    assert old.policy()(observation) == expected
    assert Discrete(3, start=1).contains(old.policy()(observation))
    config["env"] = config["spec"]["id"] = "own:StartsAtOne-v0"
    path.write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="did not note at which number the actions start"):
        assert Run.open(run.folder.path).policy()(observation) == expected - 1


def test_a_coded_observation_of_a_discrete_space_is_one_hot() -> None:
    agent = Agent(Discrete(5), Discrete(2))
    assert agent.act(np.eye(5)[2], explore=False) == agent.act(2, explore=False)
    for several in (np.arange(5), np.array([0, 1, 1, 0, 0]), np.array([0, 2, 0, 0, 0])):
        with pytest.raises(UsageError, match=r"whole number from 0 to 4.*stream="):
            agent.act(several)
    assert len(agent.act(np.arange(5), stream=range(5))) == 5
