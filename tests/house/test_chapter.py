"""The mistakes of the textbook chapter that no other test makes impossible.

docs/from-the-chapter.md lists them all, each with its test.
"""

import ast
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inside import state_of
from places import SOURCE
from qhat import recipes
from qhat.agent.agent import Agent
from qhat.axes.actions import Actions
from qhat.axes.merge import Dueling
from qhat.engine.learner import Learner
from qhat.engine.replay.ring import Transition
from qhat.evaluation.play import play_of
from qhat.recipes.recipe import Recipe
from qhat.runs import checkpoint
from qhat.system.errors import UsageError


def learner(**settings) -> Learner:
    return Learner.of(dataclasses.replace(recipes.get("dqn"), **settings), (4,), Actions((2,)))


def agent(recipe: str = "chapter_per", **settings) -> Agent:
    small = {"hidden": (8,), "replay_capacity": 64, "learning_starts": 4, "batch_size": 4}
    return Agent(4, 2, recipe, **{**small, **settings})


@pytest.mark.parametrize("hidden", [(8,), ()])
def test_negative_observations_reach_a_small_dueling_network(hidden: tuple[int, ...]) -> None:
    """The chapter rectifies the raw observation when there is one hidden layer; none crashes."""
    network = learner(merge=Dueling(), hidden=hidden).network
    parameters = network.init(jax.random.key(0))
    low = network.apply(parameters, jnp.array([-1.0, -2.0, -3.0, -4.0]))
    zero = network.apply(parameters, jnp.zeros(4))
    assert low.shape == zero.shape == (1, 2, 1)
    assert float(jnp.abs(low - zero).max()) > 1e-3


def test_a_batch_of_one_is_a_batch() -> None:
    """The chapter's `squeeze()` takes the batch axis away when the batch is one transition."""
    one = learner()
    state = jax.eval_shape(one.init, jax.random.key(0))
    batch = Transition(
        observation=jnp.zeros((1, 4)),
        action=jnp.zeros((1, 1), jnp.int32),
        reward=jnp.zeros(1),
        discount=jnp.zeros(1),
        successor=jnp.zeros((1, 4)),
    )
    arguments = (batch, jnp.ones(1), jax.random.key(1), jnp.int32(1))
    _, update = jax.eval_shape(one.update, state, *arguments)
    assert update.errors.shape == (1,)
    assert update.metrics.loss.shape == ()


def test_hidden_widths_are_a_setting() -> None:
    state = jax.eval_shape(learner(hidden=(5, 7)).init, jax.random.key(0))
    widths = {leaf.shape[0] for leaf in jax.tree.leaves(state.online)}
    assert {5, 7} <= widths


def test_every_agent_has_every_verb(tmp_path: Path) -> None:
    """The chapter's prioritised agent can neither update its target network, nor save, nor load."""
    one = agent()
    for index in range(6):
        one.remember(np.full(4, index), index % 2, 1.0, np.full(4, index + 1), False)
    assert one.replay() is not None
    one.update_target_network()
    assert type(one.act(np.ones(4))) is int
    one.save(tmp_path / "agent")
    loaded = Agent.load(tmp_path / "agent")
    np.testing.assert_array_equal(loaded.q_values(np.ones(4)), one.q_values(np.ones(4)))


def test_an_observation_is_copied_and_stored_a_single_time() -> None:
    """Two observations per transition double replay; a reference is rewritten by its owner."""
    one, before = agent(), np.zeros(4, np.float32)
    for index in range(5):
        after = np.full(4, index + 1, np.float32)
        one.remember(before, 0, 1.0, after, terminated=index == 4)
        before[:] = after  # a driver that writes every observation to the same memory
    ring = state_of(one).ring
    assert int(ring.filled[0]) == 6
    np.testing.assert_array_equal(ring.observation[:6, 0], np.arange(6))
    assert ring.observation.shape == (64, 4)


DIFFERENCES = [
    ("dqn", "double_dqn", {"policy"}),
    ("dqn", "dueling_dqn", {"merge"}),
    ("double_dqn", "per_dqn", {"sampler"}),
    ("dqn", "nstep_dqn", {"n_step"}),
    ("chapter_dqn", "chapter_double", {"policy", "max_gradient_norm"}),
    ("chapter_dqn", "chapter_dueling", {"merge"}),
    ("chapter_double", "chapter_rainbow", {"merge"}),
    ("chapter_double", "chapter_per", {"sampler"}),
    ("chapter_rainbow", "chapter_rainbow_per", {"sampler"}),
    ("qhat", "rainbow_lite", {"merge", "sampler"}),
]


@pytest.mark.parametrize(("one", "other", "fields"), DIFFERENCES)
def test_named_recipes_differ_in_what_their_names_say(one: str, other: str, fields: set[str]) -> None:
    left, right = recipes.get(one), recipes.get(other)
    names = {field.name for field in dataclasses.fields(Recipe)} - {"paper"}
    assert {name for name in names if getattr(left, name) != getattr(right, name)} == fields


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_an_algorithm_is_a_value(name: str) -> None:
    """No subclass, nothing copied, no default that a caller can change for everyone."""
    recipe = recipes.get(name)
    assert type(recipe) is Recipe
    assert isinstance(hash(recipe), int)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.gamma = 0.5  # pyright: ignore[reportAttributeAccessIssue]


def test_an_algorithm_is_no_subclass() -> None:
    bases = {
        ast.unparse(base).split(".")[-1]
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    }
    assert not bases & {"Agent", "Learner", "Network", "Program", "Recipe"}


def test_a_failed_save_leaves_the_older_one(tmp_path: Path, monkeypatch) -> None:
    tree = {"w": np.arange(3.0, dtype=np.float32)}
    checkpoint.write(tmp_path / "c", {"weights": tree}, {"step": 1})

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.write(tmp_path / "c", {"weights": {"w": tree["w"] + 1}}, {"step": 2})
    assert checkpoint.read_manifest(tmp_path / "c")["step"] == 1
    np.testing.assert_array_equal(checkpoint.read_tree(tmp_path / "c", "weights", tree)["w"], tree["w"])


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    plain, dueling = (
        jax.eval_shape(learner(**settings).init, jax.random.key(0)).online
        for settings in ({}, {"merge": Dueling()})
    )
    weights = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dueling)
    checkpoint.write(tmp_path / "c", {"weights": weights}, {})
    checkpoint.read_tree(tmp_path / "c", "weights", dueling)
    with pytest.raises(UsageError, match="has a different network architecture"):
        checkpoint.read_tree(tmp_path / "c", "weights", plain)


def test_evaluation_is_decided_by_its_seed() -> None:
    one = learner(hidden=())
    parameters = jax.vmap(one.network.init)(jax.random.split(jax.random.key(3), 1))
    play, key = play_of(one, "CartPole-v1", 6), jax.random.key(0)
    scores = [play(parameters, key, [seed]).returns for seed in (7, 7, 70)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE))
)
def test_randomness_is_seeded_and_gym_is_gymnasium(path: Path) -> None:
    """No generator that the whole process shares, and no library that is no longer maintained."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & {"gym", "random", "secrets", "torch"}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.startswith(("np.random.", "numpy.random.")):
                good = called.endswith((".default_rng", ".Philox"))
                assert good, f"{called} is shared by the whole process"
                assert node.args or node.keywords, "a generator without a seed"
