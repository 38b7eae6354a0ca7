"""Bags of ROS 2 in the format MCAP: their files, topics and messages, without ROS."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qhat.runtime.qhat_robot.messages import near
from qhat.system.errors import UsageError, require
from qhat.system.files import quote
from qhat.system.machine import install_command, installed

SUFFIX = ".mcap"
MODULES = {"mcap": "mcap", "mcap_ros2": "mcap-ros2-support", "yaml": "pyyaml"}
"""Modules that are needed, and the packages that have them."""
ENCODING, SCHEMA = "cdr", "ros2msg"
"""Of messages, and of their definitions, that can be decoded."""


class Received(NamedTuple):
    """A message of a bag."""

    time: float
    """Seconds after the bag's first message at which it was recorded."""
    topic: str
    """In the bag."""
    type: str
    """As `package/Name`."""
    message: Any


class Channel(NamedTuple):
    """What a bag says of a topic."""

    type: str
    encodings: tuple[str, str]
    """Of its messages, and of their definition."""


@dataclasses.dataclass
class Series:
    """What was read of one topic, by time."""

    times: list[float] = dataclasses.field(default_factory=list)
    values: list[Any] = dataclasses.field(default_factory=list)

    def add(self, time: float, value: Any) -> None:
        self.times.append(time)
        self.values.append(value)

    def within(self, after: float, until: float) -> list[Any]:
        """Return the values of (after, until]."""
        first, last = np.searchsorted(self.times, (after, until), side="right")
        return self.values[first:last]

    def stood(self, time: float, longest: float) -> bool:
        """Whether the newest value is of this time, or stood until one that came soon after it."""
        at = int(np.searchsorted(self.times, time, side="right"))
        if at and self.times[at - 1] == time:
            return True
        return 0 < at < len(self.times) and self.times[at] - self.times[at - 1] <= longest

    def newest(self, time: float) -> Any:
        """Return the newest value at a time; `None` if there is none yet."""
        at = int(np.searchsorted(self.times, time, side="right"))
        return self.values[at - 1] if at else None


@dataclasses.dataclass(frozen=True)
class Bag:
    """A bag of which every file has its end."""

    source: str
    files: tuple[Path, ...]
    channels: Mapping[str, Channel]
    """By topic."""
    start: int
    """Time of the first message, in nanoseconds."""
    counts: Mapping[str, int]
    """Messages of every topic, where the files count them."""
    largest: int
    """Bytes of the largest chunk."""

    def topic(self, name: str, where: str) -> str:
        """Return the bag's topic for a name of the map, which may be within a namespace.

        Args:
            where: key of the map, for the sentence.
        """
        plain = name.removeprefix("~").lstrip("/")
        if f"/{plain}" in self.channels:
            return f"/{plain}"
        found = [topic for topic in self.channels if topic.endswith(f"/{plain}") or topic == plain]
        require(
            len(found) == 1,
            f"Demonstrations '{self.source}': {where} is '{name}', and the bag has"
            f" {f'several: {chr(44).join(found)}' if found else 'no such topic'}; expected one of"
            f" {', '.join(sorted(self.channels)) or 'none'}.{near(f'/{plain}', self.channels)}",
        )
        return found[0]

    def require_decodable(self, topic: str) -> None:
        """Raise `UsageError` for a topic whose messages cannot be decoded."""
        encodings = self.channels[topic].encodings
        require(
            encodings == (ENCODING, SCHEMA),
            f"Demonstrations '{self.source}': messages on {topic} are {quote(encodings[0])} by definitions"
            f" in {quote(encodings[1])}; expected {ENCODING} and {SCHEMA}, as ros2 bag record writes them.",
        )

    def messages(self, topics: Sequence[str]) -> Iterator[Received]:
        """Yield the messages of topics in the order in which they were recorded.

        Raises:
            UsageError: a file is damaged, or has fewer messages than it says.
        """
        from qhat.system.host_memory import require_memory

        require_memory(
            4 * self.largest,
            f"Reading demonstrations '{self.source}'",
            "expected a bag with smaller chunks",
        )
        counted = dict.fromkeys(topics, 0)
        streams = [self._of_file(path, topics) for path in self.files]
        for received in heapq.merge(*streams, key=lambda one: one.time):
            counted[received.topic] += 1
            yield received
        for topic, count in counted.items():
            expected = self.counts.get(topic, count)
            require(
                count == expected,
                f"Demonstrations '{self.source}' have {count:,} messages on {topic}, and the bag says"
                f" {expected:,}; expected all of them. Nothing was stored.",
            )

    def _of_file(self, path: Path, topics: Sequence[str]) -> Iterator[Received]:
        reader = importlib.import_module("mcap.reader")
        decoder = importlib.import_module("mcap_ros2.decoder").DecoderFactory()
        with _blaming(self.source, path), path.open("rb") as stream:
            found = reader.make_reader(stream, validate_crcs=True, decoder_factories=[decoder])
            for schema, channel, record, message in found.iter_decoded_messages(topics=list(topics)):
                seconds = 1e-9 * (record.log_time - self.start)
                yield Received(seconds, channel.topic, schema.name.replace("/msg/", "/"), message)


def split(source: str) -> tuple[Path, Path | None]:
    """Return the bag and the map of `BAG.mcap@MAP.yaml`."""
    before, at, after = source.rpartition("@")
    if at and after.endswith((".yaml", ".yml")):
        return Path(before), Path(after)
    return Path(source), None


def names_bag(word: str) -> bool:
    """Whether a word names a bag: by its ending, or as a folder with such files."""
    path, _ = split(word)
    if not word:
        return False
    return path.suffix == SUFFIX or (path.is_dir() and any(path.glob(f"*{SUFFIX}")))


def opened(source: str) -> Bag:
    """Look at the end of every file of a bag.

    Raises:
        UsageError: it is not there, or has no end; or a module is not installed.
    """
    for module, package in MODULES.items():
        require(
            installed(module),
            f"Demonstrations '{source}' need {package}, which is not installed; type:"
            f" {install_command(module)}",
        )
    path, _ = split(source)
    files = tuple(sorted(path.glob(f"*{SUFFIX}"))) if path.is_dir() else (path,)
    require(
        all(file.is_file() for file in files),
        f"Demonstrations '{source}' are not there: '{path}' is no file; expected a bag, FILE{SUFFIX} or its"
        " folder.",
    )
    channels: dict[str, Channel] = {}
    counts: dict[str, int] = {}
    starts, sizes = [], [0]
    for file in files:
        with _blaming(source, file):
            summary = _summary(file)
        for one in summary.channels.values():
            schema = summary.schemas.get(one.schema_id)
            kind = "" if schema is None else schema.name.replace("/msg/", "/")
            found = Channel(kind, (one.message_encoding, "" if schema is None else schema.encoding))
            require(
                channels.setdefault(one.topic, found) == found,
                f"Demonstrations '{source}': {one.topic} has the types {channels[one.topic].type} and"
                f" {kind}; expected one type.",
            )
        sizes += [chunk.uncompressed_size for chunk in summary.chunk_indexes]
        if summary.statistics is not None:
            starts.append(summary.statistics.message_start_time)
            for at, count in summary.statistics.channel_message_counts.items():
                topic = summary.channels[at].topic
                counts[topic] = counts.get(topic, 0) + count
    whole = len(starts) == len(files)
    return Bag(source, files, channels, min(starts, default=0), counts if whole else {}, max(sizes))


def _summary(path: Path) -> Any:
    """Return what a file's end says; of one without a summary, what all of it says."""
    reader = importlib.import_module("mcap.reader")
    with path.open("rb") as stream:
        magic = importlib.import_module("mcap.stream_reader").MAGIC_SIZE
        stream.seek(-magic, 2)
        importlib.import_module("mcap.stream_reader").read_magic(
            importlib.import_module("mcap.data_stream").ReadDataStream(stream)
        )
        stream.seek(0)
        found = reader.make_reader(stream).get_summary()
    if found is None or not found.channels:
        with path.open("rb") as stream:
            found = reader.NonSeekingReader(stream).get_summary()
    return found


@contextlib.contextmanager
def _blaming(source: str, path: Path) -> Iterator[None]:
    """Say which file is damaged, whatever the reader raises."""
    try:
        yield
    except (UsageError, GeneratorExit):
        raise
    except Exception as error:
        why = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UsageError(
            f"Demonstrations '{source}': '{path}' is damaged, or its recording was not ended"
            f" ({quote(why)}); expected a whole MCAP file: mcap recover {path} -o whole{SUFFIX} keeps what"
            " can be read. Nothing was stored."
        ) from None
