"""What listens on a port and is no Ray cluster is said within seconds: Ray itself may wait without end."""

from __future__ import annotations

import http.server
import socket
import threading

import pytest

from qhat.cluster import connection
from qhat.system.errors import UsageError
from ray_cluster import RayCluster


def test_another_service_is_named():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(UsageError, match="another service than Ray answered"):
                connection._require_reachable(f"127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()


def test_a_service_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "REACHES", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        _require_silence(address)


def _require_silence(address: str) -> None:
    with pytest.raises(UsageError, match="it did not answer"):
        connection._require_reachable(address)


def test_a_cluster_answers(ray_cluster: RayCluster):
    connection._require_reachable(ray_cluster.address)
