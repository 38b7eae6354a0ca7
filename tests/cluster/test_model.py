"""The model of many actors obeys what arithmetic says of it (`benchmarks/cluster_simulation.py`)."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import sys
from typing import Any

import pytest

from places import ROOT


@pytest.fixture(scope="module")
def terms() -> Any:
    """The module of costs and policies."""
    sys.path.append(str(ROOT / "benchmarks"))
    try:
        importlib.import_module("cluster_simulation")
        return importlib.import_module("cluster_terms")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def simulate(terms: Any) -> Any:
    return sys.modules["cluster_simulation"].simulate


@pytest.fixture(scope="module")
def costs(terms: Any) -> Any:
    """Of a small network, about as on a quiet machine."""
    return terms.Costs(
        wait=0.005, work=2e-4, block=1e-4, around=5e-4, idle=0.05, travel=5e-4, submit=2e-4, poll=8e-5,
        poll_slot=4e-7, get=1.5e-4, get_byte=1e-9, read=1.5e-5, read_row=1e-7, take=1e-5, take_byte=1e-11,
        take_block=1e-5, take_full=2e-10, call=2e-4, call_byte=1e-10, store=5e-6, store_lane=1e-7,
        update=5e-5, log=5e-5, log_step=5e-8, publish=5e-4, block_bytes=1_000, row_bytes=38,
        packed_bytes=128, weight_bytes=20_000, replay_ratio=0.25,
    )  # fmt: skip


@pytest.mark.parametrize("wait", [0.002, 0.005, 0.033])
def test_one_actor_does_what_its_steps_take(simulate: Any, costs: Any, wait: float):
    found = simulate(dataclasses.replace(costs, wait=wait), 1)
    assert found.rate == pytest.approx(1 / (wait + costs.work), rel=0.05)
    assert found.limit == "simulators"


@pytest.mark.parametrize("actors", [16, 128, 512])
def test_no_more_steps_than_the_updates_allow(simulate: Any, costs: Any, actors: int):
    slow = dataclasses.replace(costs, update=0.01)
    limit = 1 / (slow.update * slow.replay_ratio)
    found = simulate(slow, actors)
    assert 0.5 * limit < found.rate <= 1.02 * limit
    assert found.limit == "gradient updates"


@pytest.mark.parametrize("actors", [4, 64, 512])
def test_no_more_steps_than_the_network_carries(terms: Any, simulate: Any, costs: Any, actors: int):
    place = terms.Place(bandwidth=50_000.0, nodes=0)
    found = simulate(costs, actors, place=place)
    assert found.rate <= 1.05 * place.bandwidth / costs.row_bytes
    assert found.network <= 1.05


def test_no_more_steps_than_the_cores_compute(terms: Any, simulate: Any, costs: Any):
    busy = dataclasses.replace(costs, wait=0.0, work=0.005)
    found = simulate(busy, 16, place=terms.Place(cores=2.0))
    assert found.rate <= 2 / busy.work
    assert found.limit == "cores"


def test_more_actors_are_no_fewer_steps(terms: Any, simulate: Any, costs: Any):
    rates = [simulate(costs, actors).rate for actors in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)]
    assert all(after >= 0.95 * before for before, after in itertools.pairwise(rates)), rates


def test_steps_underway_are_bounded(terms: Any, simulate: Any, costs: Any):
    """What is underway is chosen by older weights, so that staleness follows from the limit."""
    slow = dataclasses.replace(costs, update=0.004)
    found = simulate(slow, 32, policy=terms.Policy(underway=2_048))
    updates_underway = 2_048 * costs.replay_ratio
    between_publications = 2 * terms.Policy().call / slow.update
    assert found.staleness_most <= updates_underway + between_publications + 64 * costs.replay_ratio
