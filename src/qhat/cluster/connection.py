"""A connection to a Ray cluster: to one that runs, or to one that is started on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, no_type_check

from qhat._version import __version__
from qhat.system.errors import QhatError, UsageError, setting
from qhat.system.ray_address import ADDRESS, AUTO, LOCAL, WORDS, require_address

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
}  # fmt: skip
"""Nothing is reported to Ray's makers; errors of tasks are qhat's to say."""
TOKEN = {"RAY_AUTH_MODE": "token"}
GREETING, SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", b"\4"
"""How an HTTP/2 connection begins, and the type of the frame that answers it (RFC 9113, §3.4, §6.5)."""
REACHES = 5.0
"""Seconds that a machine has to answer a call for its port."""
ANSWERS = 60.0
"""Seconds that a node has to say what is installed on it."""


@dataclasses.dataclass(frozen=True)
class Node:
    """One machine of a cluster, and what is installed on it."""

    id: str
    """Ray's name of the node, in hexadecimal."""
    name: str
    """Its host name and address."""
    cpus: float
    gpus: float
    memory: float
    """Bytes that Ray may give to tasks."""
    python: str = ""
    """`3.11`; empty where the node was not asked."""
    qhat: str = ""


@contextlib.contextmanager
def connected(address: str, alike: bool = True) -> Iterator[list[Node]]:
    """Connect to a cluster, or start one on this machine; return its nodes.

    A connection that the process has already is used, and stays.

    Args:
        alike: whether every node has to be able to train with this machine.

    Raises:
        UsageError: the cluster cannot be reached, or a node differs from this machine.
    """
    require_address(address)
    if "ray" not in sys.modules:
        # Ray reads these while it is imported. A local cluster has a token anyway, and says so on stderr
        # unless that is asked for. A process that uses a token loses its actors on a cluster without.
        os.environ.update({**QUIET, **(TOKEN if address == LOCAL else {}), **os.environ})
    import ray

    mine = not ray.is_initialized()
    if mine:
        _start(address)
    try:
        found = nodes()
        if alike:
            require_alike(found)
        yield found
    finally:
        if mine:
            ray.shutdown()


def nodes() -> list[Node]:
    """Return the nodes that are alive, each with what is installed on it, the driver's first.

    Raises:
        QhatError: a node does not answer.
    """
    import ray

    alive = [each for each in ray.nodes() if each["Alive"]]
    here = ray.get_runtime_context().get_node_id()
    alive.sort(key=lambda each: (each["NodeID"] != here, each["NodeManagerAddress"], each["NodeID"]))
    installed = _installed([each["NodeID"] for each in alive])
    return [
        dataclasses.replace(_node(each), python=found[0], qhat=found[1])
        for each, found in zip(alive, installed, strict=True)
        if found is not None
    ]


def require_alike(found: Sequence[Node]) -> None:
    """Raise `UsageError` for the first node with another Python or another qhat than this machine."""
    for node in found:
        if what := difference(node):
            raise UsageError(f"Node {node.name} has {what}")


def difference(node: Node) -> str:
    """Say what a node has that differs from this machine; empty where it is alike."""
    here = ".".join(platform.python_version_tuple()[:2])
    if node.python != here:
        return f"Python {node.python}, and this machine {here}; expected the same on every node."
    if node.qhat != __version__:
        return (
            f"{f'qhat {node.qhat}' if node.qhat else 'no qhat'}, and this machine qhat {__version__};"
            f" expected the same on every node: pip install 'qhat[ray]=={__version__}'"
        )
    return ""


def pinned(node_id: str) -> Any:
    """Return the scheduling strategy that runs a task on one node alone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _start(address: str) -> None:
    """Connect, and leave the process's signal handlers as they are."""
    import ray

    if address not in WORDS:
        _require_reachable(address)
    quiet: dict[str, Any] = {}
    if address == LOCAL:
        quiet["include_dashboard"] = False
    try:
        with _handlers_kept(), warnings.catch_warnings():
            # A process of Ray's is a fork that begins another program: JAX's threads do not matter to it.
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
            ray.init(address, log_to_driver=False, configure_logging=False, **quiet)
    except ConnectionError:
        token = "One that asks for a token needs the same here, and RAY_AUTH_MODE=token (docs/cluster.md)."
        if address != AUTO:
            raise UsageError(
                f"What answers at '{address}' is no Ray cluster, or none that this machine may enter;"
                f" expected the address that 'ray start --head' printed on its head node. {token}"
            ) from None
        raise UsageError(
            f"This machine is no node of a cluster ({setting('cluster', address)}); start one with"
            f" 'ray start --head', or type {setting('cluster', LOCAL)}. {token}"
        ) from None
    except RuntimeError as error:
        # Ray compares its version and Python's with the cluster's.
        said = " ".join(str(error).split())
        raise UsageError(f"The cluster at '{address}' refuses this machine: {said}") from None


def _require_reachable(address: str) -> None:
    """Raise `UsageError` where nothing listens, or not a gRPC server: Ray would wait, up to without end."""
    found = ADDRESS.fullmatch(address)
    assert found is not None
    host, port = found[1].strip("[]"), int(found[2])
    try:
        with socket.create_connection((host, port), REACHES) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                connection.sendall(GREETING)
                answer = connection.recv(9)
                if answer[3:4] != SETTINGS:
                    raise OSError("another service than Ray answered")
    except (OSError, OverflowError) as error:
        why = "it did not answer" if isinstance(error, TimeoutError) else f"{error}"
        raise UsageError(
            f"The cluster at '{address}' cannot be reached within {REACHES:g} s ({why}); expected the"
            " address that 'ray start --head' printed on its head node."
        ) from None


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; a run answers it with a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _node(facts: dict[str, Any]) -> Node:
    resources, name = facts["Resources"], facts["NodeManagerHostname"]
    return Node(
        id=facts["NodeID"],
        name=f"{name} ({facts['NodeManagerAddress']})",
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        memory=resources.get("memory", 0.0),
    )


def _installed(ids: Sequence[str]) -> list[tuple[str, str] | None]:
    """Ask every node for its Python and its qhat, which may be missing; `None` for a node that is gone."""
    import ray
    from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError

    # A function within a function travels as code, which a node without qhat can run.
    @no_type_check
    def ask() -> tuple[str, str]:
        import platform

        try:
            from qhat._version import __version__ as version
        except ImportError:
            version = ""
        return ".".join(platform.python_version_tuple()[:2]), version

    remote = ray.remote(num_cpus=0, max_retries=0)(ask)
    asked = [remote.options(scheduling_strategy=pinned(each)).remote() for each in ids]
    found: list[tuple[str, str] | None] = []
    for ref in asked:
        try:
            found.append(ray.get(ref, timeout=ANSWERS))
        except (NodeDiedError, TaskUnschedulableError):
            # Ray lists a node for some seconds after it left.
            found.append(None)
        except (RayError, TimeoutError) as error:
            said = " ".join(str(error).split())[:200]
            raise QhatError(f"A node of the cluster does not answer: {said}") from None
    return found
