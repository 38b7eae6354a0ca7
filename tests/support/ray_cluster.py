"""A real Ray cluster of two nodes on this machine, started for the tests that need one and ended after."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from places import ROOT


def node() -> dict[str, Any]:
    """Return what a node of it is: one core, and the paths of what tests import."""
    paths = [str(ROOT / "src"), str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")]
    return {"num_cpus": 1, "env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}


def add_node(cluster: Any) -> Any:
    """Start another node, and return it."""
    with warnings.catch_warnings():
        # Ray forks, and JAX has threads.
        warnings.simplefilter("ignore", RuntimeWarning)
        return cluster.add_node(**node())


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    """The cluster; this process is connected to it, and its nodes import what tests/support has."""
    with warnings.catch_warnings():
        # Ray's own, of this Python's standard library.
        warnings.simplefilter("ignore")
        os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={**node(), "include_dashboard": False})
        cluster.add_node(**node())
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
