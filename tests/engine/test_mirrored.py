"""Mirror images: of a robot by its names, of transitions, and what is learned from them."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qhat
from qhat.axes.actions import Actions
from qhat.engine.mirrored import of_batch, with_mirrors
from qhat.engine.replay.transitions import Transition
from qhat.environments.mirror import Mirror
from qhat.environments.robot_mirrors import GO1, LEGS, known_mirror, mirror_of
from qhat.environments.term import Term
from qhat.system.errors import UsageError

THREE = (-1.0, 0.0, 1.0)
IMAGE = GO1[48]
ROBOT = Actions((3,) * 12, (THREE,) * 12, "float32", shape=(12,))


def batch(actions: Actions, size: int, masked: bool = False) -> Transition:
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (32, actions.factors, actions.width)
    legal = jax.random.bernoulli(keys[2], 0.7, shape) if masked else None
    return Transition(
        jax.random.normal(keys[0], (32, size)),
        jax.random.randint(keys[1], (32, actions.factors), 0, actions.width),
        jnp.arange(32.0), jnp.full(32, 0.9), jax.random.normal(keys[3], (32, size)), legal, legal,
    )  # fmt: skip


@pytest.mark.parametrize("masked", [False, True])
def test_an_image_of_an_image_is_what_was_there(masked: bool) -> None:
    swapped, plain = IMAGE.swapped(ROBOT, (48,), "Go1"), batch(ROBOT, 48, masked)
    image = of_batch(plain, IMAGE, swapped)
    assert np.abs(np.asarray(image.observation - plain.observation)).max() > 0.1
    twice = of_batch(image, IMAGE, swapped)
    for name in ("observation", "successor", "action", "legal", "legal_next", "reward"):
        now, before = getattr(twice, name), getattr(plain, name)
        assert (now is None) == (before is None)
        if now is not None:
            np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize("size", list(GO1))
def test_go1_is_known_with_all_that_training_has(size: int) -> None:
    image = known_mirror("Go1JoystickFlatTerrain", (size,))
    assert image is not None
    assert len(image.observation) == size
    assert known_mirror("Go1Getup", (size,)) is None
    # By terms with names it is the same.
    terms = [Term(name, 3) for name in ("base_lin_vel", "base_ang_vel", "projected_gravity")]
    terms += [Term(name, 12) for name in ("joint_pos", "joint_vel", "actions")]
    names = [f"{leg}_{joint}" for leg in LEGS for joint in ("hip", "thigh", "calf")]
    assert mirror_of([*terms, Term("command", 3)], names) == GO1[48]


def test_a_mask_follows_its_action() -> None:
    """A legal action's image is legal in the image."""
    plain = batch(ROBOT, 48, True)
    image = of_batch(plain, IMAGE, IMAGE.swapped(ROBOT, (48,), "Go1"))
    assert plain.legal is not None
    assert image.legal is not None
    was = np.take_along_axis(np.asarray(plain.legal), np.asarray(plain.action)[..., None], axis=2)[..., 0]
    now = np.take_along_axis(np.asarray(image.legal), np.asarray(image.action)[..., None], axis=2)[..., 0]
    assert IMAGE.joints[0] == 3
    np.testing.assert_array_equal(now, was[:, list(IMAGE.joints)])


def test_half_of_a_batch_is_mirrored() -> None:
    plain, swapped = batch(ROBOT, 48), IMAGE.swapped(ROBOT, (48,), "Go1")
    mixed = with_mirrors(plain, (IMAGE, swapped), jax.random.key(1))
    image = of_batch(plain, IMAGE, swapped)
    kept = np.asarray((mixed.observation == plain.observation).all(axis=1))
    turned = np.asarray((mixed.observation == image.observation).all(axis=1))
    assert (kept ^ turned).all()
    assert 8 < kept.sum() < 24
    np.testing.assert_array_equal(mixed.action[turned], image.action[turned])
    assert with_mirrors(plain, None, jax.random.key(1)) is plain


def test_what_is_learned_on_one_side_is_known_on_the_other(tmp_path: Path) -> None:
    """Training begins in the right half alone; five seeds are judged on both."""
    scores = {}
    for mirror in (False, True):
        run = qhat.train(
            "jax:half:Half", "dqn", mirror=mirror, steps=4_000, eval_every=4_000, eval_episodes=5, seeds=5,
            hidden=(32,), gamma=0.9, run_dir=tmp_path / str(mirror),
        )  # fmt: skip
        scores[mirror] = run.evaluate(100, env_kwargs={"both": True}).per_seed
    assert min(scores[True]) > 0.5
    assert min(scores[False]) < min(scores[True])


@pytest.mark.parametrize(
    ("joints", "signs"),
    [
        (("FR_hip_joint", "FL_hip_joint", "FR_thigh_joint", "FL_thigh_joint"), (-1, -1, 1, 1)),
        (("left_hip_yaw_joint", "right_hip_yaw_joint", "torso_joint", "left_knee", "right_knee"),
         (-1, -1, -1, 1, 1)),
        (("LF_HAA", "RF_HAA", "LF_KFE", "RF_KFE"), (-1, -1, 1, 1)),
        (("fl_hx", "fr_hx", "fl_kn", "fr_kn"), (-1, -1, 1, 1)),
    ],
)  # fmt: skip
def test_joints_have_their_other_side_by_name(joints: tuple, signs: tuple) -> None:
    found = mirror_of([Term("joint_pos", len(joints), history=2)], joints)
    assert found is not None
    assert found.joint_signs == signs
    for one, other in enumerate(found.joints):
        assert found.joints[other] == one
    size = len(joints)
    assert found.observation[size:] == tuple(place + size for place in found.observation[:size])


@pytest.mark.parametrize(
    ("terms", "joints"),
    [
        ([Term("joint_pos", 1)], ["slider_to_cart"]),
        ([Term("joint_pos", 2)], ["left_knee", "middle_knee"]),
        ([Term("foot_contact", 2)], ["left_knee", "right_knee"]),
        ([Term("joint_pos", 2, scale=(1.0, 2.0))], ["left_knee", "right_knee"]),
        ([Term("joint_pos", 2, clip=(-1.0, 2.0))], ["left_knee", "right_knee"]),
        ([], ["left_knee", "right_knee"]),
    ],
)
def test_names_that_say_too_little_give_none(terms: list, joints: list) -> None:
    assert mirror_of(terms, joints) is None


def test_a_default_pose_that_is_not_its_image_gives_none() -> None:
    terms, joints = [Term("joint_pos", 2)], ["left_knee", "right_knee"]
    assert mirror_of(terms, joints, [(0.5, 0.9), (0.5, 0.9)]) is not None
    assert mirror_of(terms, joints, [(0.5, 0.9), (0.5, -0.9)]) is None
    assert mirror_of(terms, joints, [(0.5, 0.9), (0.25, 0.9)]) is None


def test_what_is_no_mirror_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="done twice, are no identity"):
        Mirror((1, 2, 0), (1.0, 1.0, 1.0))
    with pytest.raises(UsageError, match="done twice, are no identity"):
        Mirror((0,), (2.0,))
    with pytest.raises(UsageError, match=r"does not say what its mirror image is; leave mirror out"):
        qhat.train("jax:half:Plain", "dqn", mirror=True, steps=100, run_dir=tmp_path / "a")
    with pytest.raises(UsageError, match=r"has the actions .*; its mirror image names 3"):
        Mirror.of(1, actions=[2, 1, 0]).swapped(Actions((2,)), (1,), "Half")
    uneven = dataclasses.replace(ROBOT, commands=((-1.0, 0.0, 0.5), *(THREE,) * 11))
    with pytest.raises(UsageError, match=r"Joint 0 of 'Go1' has the commands \[-1.0, 0.0, 0.5\]"):
        IMAGE.swapped(uneven, (48,), "Go1")
    with pytest.raises(UsageError, match="single steps of a sequence mirrored"):
        qhat.train("jax:half:Half", "drqn", mirror=True, steps=100, run_dir=tmp_path / "b")
