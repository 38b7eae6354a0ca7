"""Random shifts move pictures and nothing else, in every order of axes, only where they are asked for."""

import dataclasses
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qhat import TrainConfig, train
from qhat.axes.actions import Actions
from qhat.axes.torso import Nature
from qhat.axes.torso.pictures import sides
from qhat.engine.iteration import Program
from qhat.engine.learner import Learner
from qhat.engine.replay.ring import Transition
from qhat.engine.shifts import KEY, across_of, require_pictures, shifted, with_shifts
from qhat.environments.observations import Observations
from qhat.recipes.recipe import Recipe
from qhat.system.errors import UsageError

SHAPES = [(9, 7), (4, 9, 7), (9, 7, 3), (2, 9, 7, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_shift_is_a_crop_of_the_picture_with_its_edge_repeated(shape: tuple[int, ...], dtype: str):
    most, count = 3, 40
    pictures = np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(dtype)
    across = sides(shape)
    assert across is not None
    moved = np.asarray(shifted(jnp.asarray(pictures), most, jax.random.key(0), across))
    assert moved.dtype == pictures.dtype
    height, width = (shape[axis] for axis in across)
    padding = [(most, most) if axis in across else (0, 0) for axis in range(len(shape))]
    found = set()
    for before, after in zip(pictures, moved, strict=True):
        wide = np.pad(before, padding, mode="edge")
        places = [
            (row, column)
            for row in range(2 * most + 1)
            for column in range(2 * most + 1)
            if np.array_equal(_crop(wide, across, row, column, height, width), after)
        ]
        assert places, "it is no crop"
        found.update(places)
    # 49 places, each as likely: 40 draws meet 27 on average.
    assert len(found) > 15


def _crop(
    picture: np.ndarray, across: tuple[int, int], row: int, column: int, height: int, width: int
) -> np.ndarray:
    index: list[slice] = [slice(None)] * picture.ndim
    index[across[0]], index[across[1]] = slice(row, row + height), slice(column, column + width)
    return picture[tuple(index)]


def _batch(shape: tuple[int, ...]) -> Transition:
    drawn = np.random.default_rng(0)
    before, after = (jnp.asarray(drawn.integers(0, 256, (8, *shape), np.uint8)) for _ in range(2))
    action = jnp.asarray(drawn.integers(0, 3, (8, 1)), jnp.int32)
    return Transition(before, action, jnp.ones(8), jnp.full(8, 0.9), after)


def test_an_update_learns_from_both_pictures_each_moved_by_its_draw():
    recipe = Recipe(torso=Nature(), hidden=(8,), random_shift=4)
    plain = dataclasses.replace(recipe, random_shift=0)
    learner, without = (Learner.of(each, (2, 36, 36), Actions((3,))) for each in (recipe, plain))
    batch, key = _batch((2, 36, 36)), jax.random.key(3)
    assert batch.successor is not None
    keys = jax.random.split(jax.random.fold_in(key, KEY))
    moved = dataclasses.replace(
        batch,
        observation=shifted(batch.observation, 4, keys[0], (1, 2)),
        successor=shifted(batch.successor, 4, keys[1], (1, 2)),
    )
    state = jax.jit(learner.init)(jax.random.key(1))
    ones, number = jnp.ones(8), jnp.int32(1)
    found, expected, unmoved = (
        jax.jit(which.update)(state, given, ones, key, number)[1].errors
        for which, given in ((learner, batch), (without, moved), (without, batch))
    )
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, unmoved)


@pytest.mark.parametrize(
    ("shape", "frames", "dtype", "across"),
    [
        ((3, 64, 64), 4, np.uint8, (2, 3)), ((64, 64, 3), 4, np.uint8, (1, 2)),
        ((64, 64), 3, np.uint8, (1, 2)), ((4, 3, 64, 64), 0, np.uint8, (2, 3)),
        ((4, 1, 84, 84), 0, np.uint8, (2, 3)), ((16, 16, 20), 0, np.int8, (0, 1)),
        ((32, 16, 16), 0, np.uint8, (1, 2)), ((40, 48), 0, np.uint8, (0, 1)),
    ],
)  # fmt: skip
def test_height_and_width_are_those_that_the_network_reads(
    shape: tuple[int, ...], frames: int, dtype: Any, across: tuple[int, int]
):
    least, most = (-128, 127) if dtype == np.int8 else (0, 255)
    layout = Observations.of(gym.spaces.Box(least, most, shape, dtype), "x")
    layout = layout.stacked(frames) if frames else layout
    assert across_of(layout.shape, layout) == across
    require_pictures(4, layout.shape, layout.dtype, layout)
    # One value in each channel of each frame: only a wrong axis can change it.
    rest = [1 if axis in across else size for axis, size in enumerate(layout.shape)]
    drawn = np.random.default_rng(0).integers(0, 100, (8, *rest)).astype(layout.dtype)
    pictures = jnp.asarray(np.broadcast_to(drawn, (8, *layout.shape)))
    batch = Transition(pictures, jnp.zeros((8, 1), jnp.int32), jnp.ones(8), jnp.ones(8), pictures)
    moved = with_shifts(batch, 4, jax.random.key(0), layout)
    np.testing.assert_array_equal(moved.observation, pictures)
    np.testing.assert_array_equal(moved.successor, pictures)


@pytest.mark.parametrize(
    ("shape", "dtype", "recipe", "sentence"),
    [
        ((4,), "float32", {"random_shift": 4}, r"moves pictures; this environment's .*\(4,\) of float32"),
        ((2, 36, 36), "uint8", {"random_shift": 36}, "fewer pixels than a side of the pictures, 36"),
        ((2, 36, 36), "uint8", {"random_shift": -1}, "expected 0 or more pixels"),
    ],
)
def test_what_has_no_meaning_gets_its_sentence(
    shape: tuple[int, ...], dtype: str, recipe: dict[str, Any], sentence: str
):
    with pytest.raises(UsageError, match=sentence):
        Program.of(Recipe(**recipe).validate(), shape, dtype, Actions((3,)))


def test_a_run_says_so_before_it_begins(tmp_path):
    with pytest.raises(UsageError, match="random_shift=4 moves pictures"):
        train("CartPole-v1", TrainConfig.of("CartPole-v1", random_shift=4, run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_game_is_learned_with_shifts(tmp_path):
    config = TrainConfig.of(
        "Breakout-MinAtar", "dqn", random_shift=1, hidden=8, steps=300, learning_starts=100,
        eval_episodes=2, run_dir=tmp_path / "run",
    )  # fmt: skip
    run = train("Breakout-MinAtar", config)
    assert run.program.recipe.random_shift == 1
