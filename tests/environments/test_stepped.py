"""A compiled environment that Python steps: the same steps, and the environment's actions checked."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from probes import KINDS, LIMIT, TRUNCATION, Probes
from qhat.environments.stepped import stepped
from qhat.system.errors import UnfitActionError

SEEDS = 2


def test_every_seed_is_stepped_as_the_compiled_step_says():
    environment = stepped(Probes(), SEEDS, seed=3)
    assert environment.start().shape == (SEEDS, KINDS, KINDS + 2)
    assert environment.legal() is None
    for turn in range(1, 2 * LIMIT + 1):
        environment.send(np.zeros((SEEDS, KINDS, 1), np.int32))
        now = environment.receive()
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(now))
        assert now.truncated[:, TRUNCATION].tolist() == [turn % LIMIT == 0] * SEEDS
        assert now.reward[:, TRUNCATION].tolist() == [1.0] * SEEDS
    assert stepped(environment) is environment


def test_the_environments_actions_are_checked_before_a_step():
    environment = stepped(Probes())
    environment.start()
    environment.send_env_action(np.ones(KINDS, np.int64))
    assert environment.receive().reward.shape == (1, KINDS)
    for action in (np.full(KINDS, 2), np.full(KINDS, 0.5)):
        with pytest.raises(UnfitActionError):
            environment.send_env_action(action)
