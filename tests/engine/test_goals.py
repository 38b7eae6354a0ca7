"""Steps that are learned from with another goal: hindsight.

Protects against goals of other episodes, of earlier steps or of overwritten rows, rewards that stay those
of the old goal, n-step sums that mix two goals, and rules that are not the environment's. The oracle is
plain Python that knows episodes and nothing of rings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from goal_envs import Corridor, Far, Line
from qhat.agent.agent import Agent
from qhat.axes import Actions, Hindsight, Prioritised, Relabel, Uniform
from qhat.axes.axis import parse, spell
from qhat.axes.relabel import RELABELS
from qhat.cli.main import main
from qhat.engine.iteration import Program
from qhat.engine.replay import ring as replay
from qhat.engine.replay.goals import Goals, goal_places
from qhat.engine.replay.hindsight import relabelled
from qhat.environments.observations import Observations
from qhat.environments.wrappers import FrameStack, RewardScale
from qhat.recipes.config import TrainConfig
from qhat.recipes.recipe import Recipe
from qhat.runs.goal_rewards import require_rule
from qhat.system.errors import UsageError

GAMMA, ROWS, E = 0.9, 24, 2
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
box = functools.partial(gymnasium.spaces.Box, -9.0, 9.0, dtype=np.float64)
SPACE = gymnasium.spaces.Dict({"achieved_goal": box((2,)), "desired_goal": box((2,)), "speed": box((3,))})
LAYOUT = Observations.of(SPACE, "Test-v0")
RULE = Hindsight(distance=0.7)


@dataclasses.dataclass(frozen=True)
class Always(Hindsight):
    """Gives every step the goal that was achieved at a given share of what is left of its episode."""

    name: ClassVar[str] = "always"
    when: float = 1.0
    distance: float = 0.7

    def choose(self, key: Any, left: Any) -> Any:
        return jnp.ones(left.shape, bool), (self.when * left).astype(jnp.int32)


@dataclasses.dataclass
class Move:
    """One step: where it led, and how it was rewarded."""

    number: int
    achieved: np.ndarray
    after: np.ndarray
    desired: np.ndarray
    terminated: bool
    truncated: bool

    @property
    def reward(self) -> float:
        return reward(self.after, self.desired)


def reward(achieved: np.ndarray, desired: np.ndarray) -> float:
    return 0.0 if np.linalg.norm(achieved - desired) < 0.7 else -1.0


class World:
    """E copies with episodes that end at random, at a goal too if `ends`; and a record of them."""

    def __init__(self, seed: int, ends: bool):
        self.random, self.ends, self.count = np.random.default_rng(seed), ends, 0
        self.episodes: list[list[list[Move]]] = [[[]] for _ in range(E)]
        self.now, self.goal = self.random.normal(size=(2, E, 2)).astype(np.float32)

    def step(self) -> replay.Step:
        real = self.random.random(E) < 0.9
        moves = [self.move(env, bool(real[env])) for env in range(E)]
        return replay.Step(
            observation=jnp.asarray([self.shown(m.achieved, m.desired, m.number) for m in moves]),
            action=jnp.asarray([[m.number] for m in moves], jnp.int32),
            reward=jnp.asarray([m.reward for m in moves], jnp.float32),
            successor=jnp.asarray([self.shown(m.after, m.desired, m.number + 0.5) for m in moves]),
            terminated=jnp.asarray([m.terminated for m in moves]),
            truncated=jnp.asarray([m.truncated for m in moves]),
            real=jnp.asarray(real),
        )

    def move(self, env: int, real: bool) -> Move:
        self.count += 1
        after = (self.now[env] + 0.5 * self.random.normal(size=2)).astype(np.float32)
        fate = self.random.random()
        at_goal = self.ends and reward(after, self.goal[env]) == 0.0
        now, goal = self.now[env].copy(), self.goal[env].copy()
        move = Move(self.count, now, after, goal, at_goal or fate < 0.08, fate > 0.9)
        if real:
            self.episodes[env][-1].append(move)
            self.now[env] = after
            if move.terminated or move.truncated:
                self.episodes[env].append([])
                self.now[env], self.goal[env] = self.random.normal(size=(2, 2)).astype(np.float32)
        return move

    @staticmethod
    def shown(achieved: np.ndarray, desired: np.ndarray, number: float) -> np.ndarray:
        return np.concatenate([achieved, desired, [number, 0.0, 0.0]]).astype(np.float32)

    def ends_at_goals(self) -> bool:
        """Whether every step so far that reached its goal ended an episode, and there was one."""
        there = [m.terminated for env in self.episodes for e in env for m in e if m.reward == 0.0]
        return bool(there) and all(there)

    def expected(self, number: int, when: float, n: int) -> tuple[Any, ...]:
        """Goal, reward, discount and number of the last step of the relabelled window."""
        episode, at = next(
            (each, i)
            for env in self.episodes
            for each in env
            for i, m in enumerate(each)
            if m.number == number
        )
        ends, left = self.ends_at_goals(), len(episode) - 1 - at
        goal = episode[at + int(when * left)].after
        total, discount, last = 0.0, 1.0, episode[at]
        for j, move in enumerate(episode[at : at + n]):
            total += GAMMA**j * reward(move.after, goal)
            reached = ends and reward(move.after, goal) == 0.0
            dead = move.terminated and not (ends and move.reward == 0.0)
            discount *= 0.0 if reached or dead else GAMMA
            last = move
            if reached or move.terminated or move.truncated:
                break
        return goal, total, discount, last


def filled(ends: bool, turns: int, seed: int, rule: Relabel, **fields: Any) -> tuple[World, replay.Ring]:
    world = World(seed, ends)
    goals = Goals.of(rule, E * ROWS, LAYOUT)
    ring = replay.Ring.empty(E, ROWS, LAYOUT.shape, LAYOUT.dtype, Actions((10_000,)), goals=goals, **fields)
    store = quick_jit(replay.store)
    for _ in range(turns):
        ring, _, _ = store(ring, world.step())
    return world, ring


@functools.partial(quick_jit, static_argnums=1)
def every_start(ring: replay.Ring, n: int) -> tuple[Any, ...]:
    slots = jnp.arange(ring.size)
    window = replay.view(ring, slots, n, GAMMA)
    batch = replay.look_up(ring, slots, window)
    assert ring.goals is not None
    new = relabelled(ring, batch, slots, jax.random.key(0), n, GAMMA)
    return window.complete & (ring.kind != 0), ring.goals.left(slots, ring.rows), batch, new


@pytest.mark.parametrize("ends", [False, True], ids=["time", "goal"])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("when", [0.0, 0.5, 1.0])
def test_a_step_is_as_if_a_later_achievement_had_been_its_goal(ends: bool, n: int, when: float) -> None:
    for seed, turns in ((0, 15), (1, 70), (2, 131)):
        world, ring = filled(ends, turns, seed, Always(when=when))
        complete, left, old, new = jax.device_get(every_start(ring, n))
        assert ring.goals is not None
        assert bool(ring.goals.ends) == world.ends_at_goals()
        checked = 0
        for slot in np.flatnonzero(complete):
            number = int(old.action[slot, 0])
            if left[slot] < 0:
                assert np.array_equal(new.observation[slot], old.observation[slot])
                assert new.reward[slot] == old.reward[slot]
                continue
            checked += 1
            goal, total, discount, last = world.expected(number, when, n)
            np.testing.assert_array_equal(new.observation[slot, 2:4], goal)
            np.testing.assert_array_equal(new.successor[slot, 2:4], goal)
            np.testing.assert_array_equal(new.successor[slot, :2], last.after)
            np.testing.assert_allclose([new.reward[slot], new.discount[slot]], [total, discount], rtol=1e-5)
            others = [0, 1, 4, 5, 6]
            np.testing.assert_array_equal(new.observation[slot, others], old.observation[slot, others])
        assert checked > ROWS // 2, "most steps have an episode that is whole"
        assert int(ring.goals.wrong) == 0


@pytest.mark.parametrize("sampler", [Uniform(), Prioritised()], ids=spell)
def test_a_share_of_a_batch_has_other_goals(sampler: Any) -> None:
    _, ring = filled(False, 90, 3, dataclasses.replace(RULE, share=0.25))
    state = sampler.init(ring.size)
    state = sampler.store(state, jnp.arange(ring.size), ring.kind != 0)

    @quick_jit
    def draw(key: jax.Array) -> tuple[Any, ...]:
        first, second = jax.random.split(key)
        batch, slots, weights = replay.sample(
            ring, sampler, state, first, jnp.int32(0), batch=4_000, n=2, gamma=GAMMA
        )
        assert ring.goals is not None
        whole = ring.goals.left(slots, ring.rows) >= 0
        return batch, relabelled(ring, batch, slots, second, 2, GAMMA), weights, whole

    old, new, weights, whole = jax.device_get(draw(jax.random.key(1)))
    other = (new.observation != old.observation).any(axis=1)
    assert abs(other[whole].mean() - 0.25) < 0.03
    assert not other[~whole].any()
    assert (weights > 0).all()
    np.testing.assert_array_equal(new.reward[~other], old.reward[~other])


def test_goals_are_achieved_at_every_later_step_alike() -> None:
    which, later = Hindsight(share=1.0).choose(jax.random.key(0), jnp.full(40_000, 3))
    assert bool(which.all())
    np.testing.assert_allclose(np.bincount(np.asarray(later)) / 40_000, 0.25, atol=0.01)
    assert int(Hindsight(share=1.0).choose(jax.random.key(0), jnp.zeros(50, jnp.int32))[1].max()) == 0


def test_changed_rewards_are_changed_for_new_goals_too() -> None:
    goals = Goals.of(RULE, 4, LAYOUT, (RewardScale(10.0),))
    assert goals is not None
    np.testing.assert_allclose(goals.reward(jnp.zeros((2, 3, 2)), jnp.ones((2, 3, 2))), -10.0)


def test_a_support_knows_the_reward_of_a_goal_that_no_step_reached() -> None:
    rule = Hindsight(distance=1e-6, success=5.0, failure=-1.0)
    _, ring = filled(False, 3, 0, rule, watch=GAMMA)
    assert ring.outlook is not None
    np.testing.assert_allclose(ring.outlook.rewards, [-1.0, 5.0])


@pytest.mark.parametrize("kind", RELABELS)
def test_values_are_spelled(kind: type[Relabel]) -> None:
    assert parse(spell(kind()), RELABELS) == kind()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("hindsight:share=0", "hindsight:share is 0"),
        ("hindsight:distance=0", "expected more than 0"),
        ("hindsight:differing=2", "hindsight:differing is 2"),
        ("hindsight:success=-1", "expected success > failure"),
        ("hindsigt", "Did you mean 'hindsight'"),
    ],
)
def test_bad_settings_are_refused(given: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "CartPole-v1", "--relabel", given])
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (box((3,)), "these have one array"),
        (gymnasium.spaces.Dict({"achieved_goal": box((2,)), "goal": box((2,))}), "'achieved_goal', 'goal'"),
        (gymnasium.spaces.Dict({"achieved_goal": box((2,)), "desired_goal": box((3,))}), "cannot compare"),
        (
            gymnasium.spaces.Dict(
                {
                    "achieved_goal": box((2,)),
                    "desired_goal": box((2,)),
                    "camera": gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8),
                }
            ),
            "these are pictures",
        ),
    ],
)
def test_observations_without_goals_are_refused(space: Any, says: str) -> None:
    layout = Observations.of(space, "Test-v0")
    with pytest.raises(UsageError, match=says):
        Program.of(Recipe(relabel=RULE), layout.shape, layout.dtype, Actions((2,)), layout=layout)
    with pytest.raises(UsageError, match="these are stacked"):
        goal_places(LAYOUT.stacked(4))


def test_an_agent_does_not_relabel(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an Agent's replay does not know"):
        Agent(SPACE, 2, relabel="hindsight")


train: Any = qhat.train
SETTINGS: Any = {
    "steps": 600, "eval_every": 300, "eval_episodes": 3, "num_envs": 2, "hidden": (16,), "batch_size": 16,
    "learning_starts": 64, "replay_ratio": 0.5, "replay_capacity": 400, "n_step": 2,
}  # fmt: skip


def test_a_run_relabels_and_an_agent_goes_on_without(tmp_path: Path) -> None:
    whole = train(Line(), "dqn", run_dir=tmp_path / "whole", **SETTINGS, relabel=Hindsight(distance=0.5))
    plain = train(Line(), "dqn", run_dir=tmp_path / "plain", **SETTINGS)
    weights = [jax.tree.leaves(run.weights("last")) for run in (whole, plain)]
    assert not all(map(np.array_equal, *weights))
    agent = Agent.load(whole.folder.path)
    assert not agent.recipe.relabel.happens
    with pytest.raises(UsageError, match="an Agent's replay"):
        Agent.load(whole.folder.path, relabel="hindsight")


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (Hindsight(distance=3.0), "hindsight:distance=0.5"),
        (Hindsight(distance=0.5, success=1.0, failure=0.0), "hindsight:distance=0.5"),
        (Hindsight(dense=True), "hindsight:distance=0.5"),
    ],
)
def test_a_rule_that_is_not_the_environments_is_refused(rule: Hindsight, fits: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gives other rewards than .* Its rewards so far fit") as caught:
        train(Corridor, "dqn", run_dir=tmp_path / "run", **{**SETTINGS, "relabel": rule})
    assert fits in str(caught.value)


@pytest.mark.parametrize(("differing", "passes"), [(0.02, True), (0.01, False)])
def test_a_share_of_steps_may_have_another_reward(differing: float, passes: bool) -> None:
    rule = dataclasses.replace(RULE, differing=differing)
    _, ring = filled(False, 20, 0, rule)
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), ring)
    met = (jnp.array([12, 0]), jnp.array([1_000, 1_000]))
    two = eqx.tree_at(lambda ring: (ring.goals.wrong, ring.goals.steps), two, met)
    with contextlib.nullcontext() if passes else pytest.raises(UsageError, match="12 of 1,000 steps"):
        require_rule(TrainConfig("Corridor", recipe=Recipe(relabel=rule)), two)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"wrap": (RewardScale(10.0),)}, "wrappers of rewards leave -10; .* Derive a class"),
        (
            {"relabel": Hindsight(success=1.0, failure=0.0)},
            "rewards so far are -1: set failure, and success",
        ),
    ],
    ids=["scaled", "constant"],
)
def test_what_does_not_fit_is_not_guessed(settings: Any, says: str, tmp_path: Path) -> None:
    env = Far() if "relabel" in settings else Line()
    given = {"relabel": Hindsight(distance=3.0)} | settings
    with pytest.raises(UsageError, match=says):
        train(env, "dqn", run_dir=tmp_path / "run", **SETTINGS, **given)


def test_rounding_at_the_edge_does_not_tell_whether_episodes_end() -> None:
    goals = Goals.of(RULE, 4, LAYOUT)
    assert goals is not None
    for ended, passed, ends in (
        (0, 0, False),
        (1, 0, True),
        (300, 1, True),
        (300, 4, False),
        (0, 9, False),
    ):
        met = (jnp.int32(ended), jnp.int32(passed))
        assert bool(eqx.tree_at(lambda each: (each.ended, each.passed), goals, met).ends) == ends


def test_frames_of_goals_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Leave .*frame_stack"):
        train(
            Corridor,
            "dqn",
            run_dir=tmp_path / "run",
            **SETTINGS,
            relabel="hindsight",
            wrap=(FrameStack(2),),
        )
