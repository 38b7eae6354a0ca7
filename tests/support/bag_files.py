"""Bags of ROS 2 in the format MCAP, written as `ros2 bag record` writes them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mcap.writer import CompressionType, Writer
from rosbags.typesys import Stores, get_typestore

from ros_messages import Structure, cdr

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


class Sent(NamedTuple):
    """A message, and when it was recorded, in seconds."""

    time: float
    topic: str
    message: Structure


@functools.cache
def definition(kind: str) -> str:
    """The text that a bag has of a message type."""
    text, _ = get_typestore(Stores.ROS2_JAZZY).generate_msgdef(kind.replace("/", "/msg/"), ros_version=2)
    return text


def write_bag(
    path: Path,
    sent: Iterable[Sent],
    compression: Any = CompressionType.ZSTD,
    encoding: str = "ros2msg",
    **how: Any,
) -> Path:
    """Write messages in the order that is given."""
    with path.open("wb") as stream:
        writer = Writer(stream, compression=compression, chunk_size=20_000, **how)
        writer.start(profile="ros2")
        schemas: dict[str, int] = {}
        channels: dict[tuple[str, str], int] = {}
        for one in sent:
            kind = type(one.message).full_name
            if kind not in schemas:
                name, text = kind.replace("/", "/msg/"), definition(kind)
                schemas[kind] = writer.register_schema(name, encoding, text.encode())
            if (one.topic, kind) not in channels:
                channels[one.topic, kind] = writer.register_channel(one.topic, "cdr", schemas[kind])
            at = START + round(one.time * SECOND)
            writer.add_message(channels[one.topic, kind], at, cdr(one.message), at)
        writer.finish()
    return path
