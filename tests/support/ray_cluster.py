"""A Ray cluster of two nodes with one core each, on this machine: real processes, which tests may kill.

Ray starts its processes by a fork, which may lock up a process in which JAX has threads: another process
does it for the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from places import ROOT
from qhat.cluster.connection import QUIET

NOTICED = {"RAY_health_check_period_ms": "500", "RAY_health_check_timeout_ms": "2000"}
"""How soon a killed node counts as dead."""
SCRIPT = """
import json, sys
from ray.cluster_utils import Cluster
say, sys.stdout = sys.stdout, sys.stderr
head = {"num_cpus": 1, "include_dashboard": False}
cluster, nodes = Cluster(initialize_head=True, head_node_args=head), {}
def add(**options):
    node = cluster.add_node(**options)
    nodes[node.node_id] = node
    return node.node_id
print(json.dumps([cluster.address, add(num_cpus=1)]), file=say, flush=True)
for line in sys.stdin:
    word, options = json.loads(line)
    if word == "add":
        print(json.dumps(add(**options)), file=say, flush=True)
    else:
        cluster.remove_node(nodes.pop(options["node"]), allow_graceful=False)
        print("null", file=say, flush=True)
cluster.shutdown()
"""


class RayCluster:
    """A head node, and others that can be killed; nodes import what tests/support has."""

    def __init__(self):
        kept = {
            name: value for name, value in os.environ.items() if name not in ("PJRT_NPROC", "XLA_FLAGS")
        }
        paths = [str(ROOT / "src"), str(ROOT / "tests" / "support"), kept.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
            env={**kept, **QUIET, **NOTICED, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        self.address, second = self._read()
        self.second: str | None = second
        """Where the head node listens, and Ray's name of the second node; None after it was killed."""

    def add_node(self, **options: Any) -> str:
        """Start a node; return Ray's name of it."""
        return self._ask("add", options)

    def remove_node(self, node: str, allow_graceful: bool = False) -> None:
        """Kill a node and everything on it."""
        assert not allow_graceful
        self._ask("remove", {"node": node})
        if node == self.second:
            self.second = None

    def close(self) -> None:
        """End all processes of all nodes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, word: str, options: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([word, options]) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="session")
def started_cluster() -> Iterator[RayCluster]:
    """Start a cluster and connect this process; each process of pytest that needs one does."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patched:
        # Of Ray: a later version leaves CUDA's devices alone.
        warnings.simplefilter("ignore", FutureWarning)
        for name, value in QUIET.items():
            patched.setenv(name, value)
        cluster = RayCluster()
        import ray

        try:
            ray.init(cluster.address, log_to_driver=False, configure_logging=False)
            yield cluster
        finally:
            ray.shutdown()
            cluster.close()


@pytest.fixture
def ray_cluster(started_cluster: RayCluster) -> RayCluster:
    """Return a cluster of two nodes, to which this process is connected."""
    if started_cluster.second is None:
        started_cluster.second = started_cluster.add_node(num_cpus=1)
    import ray

    while sum(node["Alive"] for node in ray.nodes()) != 2:
        time.sleep(0.1)
    return started_cluster


def processes(task: str) -> list[psutil.Process]:
    """Return the processes of this cluster that run a task now, by a part of its name.

    Another process of the tests has another cluster, and tasks of the same names.
    """
    import ray

    address, found = ray.get_runtime_context().gcs_address, []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if words.startswith("ray::") and task in words:
            with contextlib.suppress(psutil.NoSuchProcess):
                node = process.parent()
                if node is not None and address in " ".join(node.cmdline()):
                    found.append(process)
    return found
