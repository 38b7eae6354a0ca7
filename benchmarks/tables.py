"""From measurements to tables, on the terminal and in Markdown."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable

from contenders import Contender

Results = dict[str, list[dict | None]]
"""Of every contender by name, what each round measured; `None` where it failed."""


@dataclass(frozen=True)
class Table:
    """A titled table of text."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def rich(self) -> RichTable:
        """Return it for the terminal."""
        table = RichTable(title=self.title)
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Return it as a section of Markdown."""
        rule = "|---|" + "---:|" * (len(self.columns) - 1)
        lines = ["| " + " | ".join(row) + " |" for row in (self.columns, *self.rows)]
        return "\n".join([f"## {self.title}", "", self.note, "", lines[0], rule, *lines[1:]])


def throughput(chosen: Sequence[Contender], results: Results) -> Table:
    """Steps per second, and how many times SB3's that is."""

    def speed(measured: dict) -> float:
        return measured["steps"] / measured["seconds"]

    best = _best(chosen, results, speed, max)
    rows = [
        (
            _label(contender, chosen, best),
            spread(results[contender.name], speed, 0),
            _ratio(results, contender.name, best.get("sb3"), speed),
            _memory(results, contender),
        )
        for contender in chosen
    ]
    return Table(
        "Training throughput",
        "CartPole-v1, one environment (per seed), one gradient step per environment step, batch 32,"
        " two layers of 64, Adam 1e-3, replay of 100,000. Imports, compilation and the first 1,500"
        " steps are not timed. Each system steps its own environment: Gymnasium's for the peers,"
        " gymnax's inside the compiled loop for qhat and rejax. The chapter's algorithms are measured in a"
        " transcription that does the same operations per step.",
        ("system", "steps/s", "× SB3", "memory at peak, MiB"),
        rows,
    )


def environments(chosen: Sequence[Contender], results: Results) -> Table:
    """Steps per second, and how many times SB3's on the same task that is."""

    def speed(measured: dict) -> float:
        return measured["steps"] / measured["seconds"]

    best = _best(chosen, results, speed, max)
    rows = []
    for contender in chosen:
        task = contender.name.partition("-")[2].removesuffix("-t1").removesuffix("-t2")
        rows.append(
            (
                _label(contender, chosen, best),
                spread(results[contender.name], speed, 0),
                _ratio(results, contender.name, best.get(f"sb3-{task}"), speed),
                _memory(results, contender),
            )
        )
    return Table(
        "Environments",
        "CartPole-v1: the work of the table above, qhat stepping Gymnasium's environment in Python."
        " LunarLander-v3: eight environments, one gradient step per four environment steps, batch 128, two"
        " layers of 256. Breakout-MinAtar: one update per four frames, batch 32, 16 filters, 128, replay of"
        " 100,000; PyTorch steps the package minatar, qhat gymnax's version of it. Pong-v5: one update per"
        " four steps, batch 32, the Nature network, replay of 20,000; each library's usual pipeline of"
        " frames, which is EnvPool for tianshou and qhat, and Gymnasium with wrappers in Python for the"
        " others. tianshou's target evaluates the online network as well, although nothing uses it.",
        ("task · system", "steps/s", "× SB3", "memory at peak, MiB"),
        rows,
    )


def updates(chosen: Sequence[Contender], results: Results) -> Table:
    """Milliseconds of an update, as a share of PyTorch's on the same network with its better threads."""

    def milliseconds(measured: dict) -> float:
        return measured["milliseconds"]

    best = _best(chosen, results, milliseconds, min)
    rows = []
    for contender in chosen:
        network = contender.name.split("-")[1]
        rows.append(
            (
                _label(contender, chosen, best),
                spread(results[contender.name], milliseconds, 2),
                *(
                    _ratio(results, contender.name, best.get(f"torch-{network}{layout}"), milliseconds)
                    for layout in ("", "-last")
                ),
            )
        )
    return Table(
        "Updates of image networks",
        "One DQN update: batch 32, 4 frames of 84×84 bytes (MinAtar: 10×10 with 4 channels), forward passes"
        " of both networks, gradient, Adam. The ratio is to the best of 1 and 2 threads.",
        ("network · system", "ms", "× PyTorch's time", "× PyTorch's, channels last"),
        rows,
    )


def replay(chosen: Sequence[Contender], results: Results) -> Table:
    """Microseconds per sample + update, and how many times as fast as cpprb that is."""
    rows = []
    for contender in chosen:
        row = [contender.label]
        for batch in ("32", "256"):
            time = _microseconds(batch)
            row += [
                spread(results[contender.name], time, 0),
                _ratio(results, "cpprb", contender.name, time),
            ]
        rows.append((*row, _memory(results, contender)))
    return Table(
        "Prioritised replay",
        "Sample + priority update in microseconds, 1,000,000 slots, observations of 4 float32."
        " A full sample gathers the transitions and computes weights; the tree alone does neither,"
        " and is to be compared with the tree alone. qhat runs inside one compiled loop, as it"
        " does in training; the others are called from Python, as they are in training. flashbax's"
        " sample has no weights.",
        (
            "system",
            "batch 32, µs",
            "× cpprb's speed",
            "batch 256, µs",
            "× cpprb's speed",
            "memory at peak, MiB",
        ),
        rows,
    )


def time_to_score(chosen: Sequence[Contender], results: Results) -> Table:
    """Seconds from a cold start to the end of training, and the score of each seed."""

    def seconds(measured: dict) -> float:
        return measured["seconds"]

    best = _best(chosen, results, seconds, min)
    rows = [
        (
            _label(contender, chosen, best),
            spread(results[contender.name], seconds, 1),
            _ratio(results, best.get("sb3-zoo"), contender.name, seconds),
            _memory(results, contender),
            ", ".join(f"{one['mean_return']:.1f}" if one else "–" for one in results[contender.name]),
        )
        for contender in chosen
    ]
    return Table(
        "From nothing to a score",
        "CartPole-v1, 50,000 environment steps, another seed in each round: wall-clock of a cold"
        " process, imports and compilation with an empty cache included. Then, untimed, the mean"
        " return of 100 greedy episodes (500 is the most there is).",
        ("system", "seconds", "× SB3's speed", "memory at peak, MiB", "return of each seed"),
        rows,
    )


TABLES: dict[str, Callable[[Sequence[Contender], Results], Table]] = {
    "throughput": throughput,
    "environments": environments,
    "updates": updates,
    "replay": replay,
    "time-to-score": time_to_score,
}


def _label(contender: Contender, chosen: Sequence[Contender], best: dict[str, str]) -> str:
    """Write the label; mark the best of a group where there is a choice."""
    rivals = sum(other.group == contender.group for other in chosen)
    is_best = rivals > 1 and best.get(contender.group) == contender.name
    return contender.label + " (best)" * is_best


def _memory(results: Results, contender: Contender) -> str:
    """The most memory that a process of the contender had, imports and compilation included; the median."""
    values = _values(results[contender.name], lambda measured: measured["peak_mib"])
    return f"{statistics.median(values):,.0f}" if values else "–"


def _microseconds(batch: str) -> Callable[[dict], float]:
    return lambda measured: measured["microseconds"][batch]


def _values(measured: list[dict | None], value: Callable[[dict], float]) -> list[float]:
    return [value(one) for one in measured if one]


def _best(
    chosen: Sequence[Contender],
    results: Results,
    value: Callable[[dict], float],
    better: Callable[..., str],
) -> dict[str, str]:
    """Of every group, the contender with the best median."""
    medians = {
        contender: statistics.median(values)
        for contender in chosen
        if contender.group and (values := _values(results[contender.name], value))
    }
    groups = {contender.group for contender in medians}
    return {
        group: better(
            (contender.name for contender in medians if contender.group == group),
            key={contender.name: median for contender, median in medians.items()}.__getitem__,
        )
        for group in groups
    }


def spread(measured: list[dict | None], value: Callable[[dict], float], digits: int) -> str:
    """Write the median, and the lowest and highest where there are several."""
    values = _values(measured, value)
    if not values:
        return "failed"
    low, middle, high = (f"{of(values):,.{digits}f}" for of in (min, statistics.median, max))
    return f"{middle} ({low}–{high})" if len(values) > 1 else middle


def _ratio(results: Results, above: str | None, below: str | None, value: Callable[[dict], float]) -> str:
    """Median of the ratios within each round, where both ran side by side."""
    pairs = zip(results.get(above or "", []), results.get(below or "", []), strict=False)
    ratios = [value(one) / value(other) for one, other in pairs if one and other]
    if not ratios:
        return "–"
    ratio = statistics.median(ratios)
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2f}"
