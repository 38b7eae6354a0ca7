"""`qhat cluster status`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import tyro

from qhat.cli.parsing import read
from qhat.cli.tables import console
from qhat.system.errors import UsageError, near_miss
from qhat.system.ray_address import AUTO, require_address

WORDS = ("status",)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Say what a Ray cluster has, whether every node can train, and what qhat runs there."""

    what: tyro.conf.Positional[str] = "status"
    """status, the only one."""
    cluster: tyro.conf.Positional[str] = AUTO
    """auto (the cluster that this machine is a node of), local, or HOST:PORT of the head node."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object on stdout."""


def run(words: Sequence[str]) -> int:
    """Parse, connect and print."""
    args = read(Cluster, words, "cluster")
    if args.what not in WORDS:
        raise UsageError(
            f"qhat cluster has no '{args.what}'; expected status: qhat cluster status [HOST:PORT]"
            + near_miss(args.what, WORDS)
        )
    require_address(args.cluster)
    from qhat.cluster.connection import connected
    from qhat.cluster.status import status_of

    with console().status("connecting"), connected(args.cluster, alike=False) as nodes:
        status = status_of(nodes)
    if args.json:
        print(json.dumps(dataclasses.asdict(status)))
        return 0
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("node", "cores", "GPUs", "memory", "Python", "qhat", ""):
        table.add_column(column, justify="left" if column in ("node", "") else "right")
    for node in status.nodes:
        memory = f"{node.memory / 2**30:.1f} GiB"
        cells = (node.name, f"{node.cpus:g}", f"{node.gpus:g}", memory, node.python, node.qhat or "none")
        table.add_row(*cells, node.differs)
    console().print(table)
    print(
        f"\nfree: {status.free_cpus:g} of {status.cpus:g} cores, {status.free_gpus:g} of"
        f" {status.gpus:g} GPUs; object store {status.store_used / 2**20:,.0f} of"
        f" {status.store / 2**20:,.0f} MiB in use"
    )
    for name, count in status.runs.items():
        print(f"running: {name} with {count:,} actors")
    if not status.runs:
        print("running: no actors of qhat (seeds on a cluster are not listed)")
    where = "" if args.cluster == AUTO else f" {args.cluster}"
    print(f"next:\n  qhat train gym:ENV --actors N --cluster{where or ' auto'}")
    return 0
