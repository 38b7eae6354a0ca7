"""The least that a step of the compiled loop can take here, beside what it takes.

`python benchmarks/roofline.py` prints the page; `--out docs/results/roofline.md` writes it. CartPole-v1,
the recipes and sizes of the comparison with Stable-Baselines3 (run.py). Each column is measured in a
separate process by roofline_case.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qhat.system.machine import machine
from roofline_parts import PRODUCTS

HERE = Path(__file__).resolve().parent
COMPARISON = HERE.parent / "docs" / "results" / "benchmarks.md"
ASKED = {1: 50.0, 8: 100.0}
"""How many times SB3's speed was asked for, by the number of seeds."""
NAMES = {"dqn": "DQN", "per": "DQN, PER", "rainbow": "Rainbow"}


@dataclasses.dataclass(frozen=True)
class Column:
    """What was measured of one recipe and number of seeds; times are µs of one environment step."""

    variant: str
    found: dict[str, Any]
    sb3: float
    """Microseconds of a step of SB3."""

    @property
    def seeds(self) -> int:
        return self.found["seeds"]

    @property
    def name(self) -> str:
        return f"{NAMES[self.variant]}, {self.seeds} seed{'s' * (self.seeds > 1)}"

    @property
    def rates(self) -> dict[str, float]:
        return self.found["rates"]

    @property
    def whole(self) -> float:
        return self.found["whole"] / self.seeds

    @property
    def count(self) -> int:
        """Operations of one iteration of one device."""
        return sum(self.found["operations"].values())

    @property
    def dispatch(self) -> float:
        """The operations that are no products, at the measured time of an empty one."""
        return (self.count - self.found["operations"]["product"]) * self.rates["dispatch"] / self.seeds

    @property
    def products(self) -> float:
        """The faster of two measurements: every product by itself, and the part that has most of them."""
        return min(self.rates["products"], self.found["parts"][PRODUCTS]) / self.seeds

    @property
    def gigaflops(self) -> float:
        return self.rates["flops"] / self.found["devices"] / self.products / 1e3

    @property
    def arithmetic(self) -> float:
        """The products at the rate of large ones."""
        return self.rates["flops"] / self.found["devices"] / self.rates["widest"] / 1e3

    @property
    def memory(self) -> float:
        touched = self.found["touched"]
        return sum(touched[name] / self.rates[name] for name in touched) / self.found["devices"] / 1e3

    @property
    def bound(self) -> float:
        return self.dispatch + self.products + self.memory

    @property
    def asked(self) -> float:
        return ASKED[self.seeds]

    @property
    def best(self) -> float:
        """The bound with products at the rate of large ones."""
        return self.dispatch + self.arithmetic + self.memory

    def part(self, name: str) -> str:
        found = self.found["parts"].get(name)
        return "–" if found is None else f"{found / self.seeds:.1f}"


def main() -> None:
    """Measure every column; print the page or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=sorted(NAMES), default=["dqn", "per"])
    parser.add_argument("--seeds", nargs="+", type=int, choices=sorted(ASKED), default=[1, 8])
    parser.add_argument(
        "--sb3-steps-per-second", type=float, default=sb3_rate(),
        help="of Stable-Baselines3's DQN on this machine; default: that of docs/results/benchmarks.md",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="page to write")
    args = parser.parse_args()
    columns = [
        Column(variant, case(variant, seeds), 1e6 / args.sb3_steps_per_second)
        for variant in args.variants
        for seeds in args.seeds
    ]
    text = page(columns)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


def sb3_rate() -> float:
    """Return SB3's steps per second from the page that `make bench` writes."""
    found = re.search(
        r"Stable-Baselines3 DQN.*\(best\) \| ([\d,]+)", COMPARISON.read_text(encoding="utf-8")
    )
    if found is None:
        raise SystemExit("docs/results/benchmarks.md has no figure of SB3; give --sb3-steps-per-second.")
    return float(found[1].replace(",", ""))


def case(variant: str, seeds: int) -> dict[str, Any]:
    """Measure one recipe and number of seeds in a separate process."""
    command = [sys.executable, str(HERE / "roofline_case.py"), "--variant", variant, "--seeds", str(seeds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(title: str, columns: list[Column], rows: dict[str, Callable[[Column], str]]) -> list[str]:
    """Return a Markdown table with a column of figures for every case."""
    head = f"| {title} | " + " | ".join(column.name for column in columns) + " |"
    body = [
        f"| {name} | " + " | ".join(row(column) for column in columns) + " |" for name, row in rows.items()
    ]
    return [head, "|---|" + "---:|" * len(columns), *body]


def times(columns: list[Column]) -> list[str]:
    """Return the table of measured times."""
    rows: dict[str, Callable[[Column], str]] = {
        "whole loop": lambda c: f"{c.whole:.1f}",
    }
    names = dict.fromkeys(name for column in columns for name in column.found["parts"])
    rows |= {name: lambda c, name=name: c.part(name) for name in names}
    return table("µs of one environment step", columns, rows)


def bounds(columns: list[Column]) -> list[str]:
    """Return the table of what the operations, products and bytes take by themselves."""
    kinds = {
        "fusion": "fused elementwise work, gathers, sums", "copy": "copies", "product": "products",
        "call": "small loops compiled to one function", "while": "loops",
        "turn": "inside loops of known length", "concatenate": "joins",
    }  # fmt: skip
    known = [kind for kind in kinds if any(kind in c.found["operations"] for c in columns)]
    rows: dict[str, Callable[[Column], str]] = {
        f"operations of an iteration: {kinds[kind]}": lambda c, kind=kind: (
            f"{c.found['operations'].get(kind, 0)}"
        )
        for kind in known
    }
    rows |= {
        "operations of an iteration": lambda c: f"{c.count}",
        "share of batches that are redrawn": lambda c: f"{c.found['redrawn']:.0%}",
        "ns to start a tiny operation": lambda c: f"{1e3 * c.rates['dispatch']:.0f}",
        "**µs: operations but products × that**": lambda c: f"{c.dispatch:.1f}",
        "MFLOP of the products of a step": lambda c: f"{c.rates['flops'] / 1e6:.2f}",
        "GFLOP/s of products of these shapes, one core": lambda c: f"{c.gigaflops:.0f}",
        "**µs: products of these shapes**": lambda c: f"{c.products:.1f}",
        "GFLOP/s of 256 × 256 products, one core": lambda c: f"{c.rates['widest']:.0f}",
        "µs: products, at the rate of 256 × 256": lambda c: f"{c.arithmetic:.1f}",
        "KiB of weights and optimiser, read and written": lambda c: (
            f"{c.found['touched']['learner'] / 1024:.0f}"
        ),
        "GB/s, vectors as large as these, one core": lambda c: f"{c.rates['learner']:.0f}",
        "KiB of replay read and written": lambda c: f"{c.found['touched']['replay'] / 1024:.1f}",
        "GB/s, vectors as large as replay, one core": lambda c: f"{c.rates['replay']:.0f}",
        "**µs: bytes**": lambda c: f"{c.memory:.1f}",
        "**µs: the three together**": lambda c: f"{c.bound:.1f}",
        "µs that the asked factor allows": lambda c: f"{c.sb3 / c.asked:.1f}",
        "µs: the same, products at the rate of 256 × 256": lambda c: f"{c.best:.1f}",
        "× SB3: asked": lambda c: f"{c.asked:.0f}",
        "× SB3: measured": lambda c: f"{c.sb3 / c.whole:.0f}",
        "× SB3: the three together": lambda c: f"{c.sb3 / c.bound:.0f}",
        "× SB3: the same, products at the rate of 256 × 256": lambda c: f"{c.sb3 / c.best:.0f}",
    }
    return table("per seed and step, unless it says otherwise", columns, rows)


def says(column: Column) -> list[str]:
    """Return what the numbers of one column say."""
    allowed, parts = column.sb3 / column.asked, column.found["parts"]
    named = {
        name.rstrip(" *"): took / column.seeds for name, took in parts.items() if "one key" not in name
    }
    largest = max(named, key=lambda name: named[name])
    if column.best > allowed:
        verdict = (
            f"Products at the rate of large ones would make it {column.best:.1f}, still more than allowed:"
            " the factor needs less work, or more cores."
        )
    elif column.bound > allowed:
        verdict = (
            "That is more than allowed; products at the rate of large ones would make it"
            f" {column.best:.1f}. So the factor needs these products faster than they are here."
        )
    else:
        verdict = (
            f"That leaves {allowed - column.bound:.1f} µs for everything else, which now takes"
            f" {column.whole - column.bound:.1f}: the three do not forbid the factor."
        )
    return [
        f"- **{column.name}.** {column.asked:.0f} times SB3 allows {allowed:.1f} µs a step; it takes"
        f" {column.whole:.1f}. Products of these shapes, the start of operations and bytes alone take"
        f" {column.bound:.1f}. {verdict}",
        f"  The largest part is '{largest}', {named[largest]:.1f} µs; the products of the whole step, each"
        f" repeated by itself, take {column.rates['products'] / column.seeds:.1f}.",
    ]


def page(columns: list[Column]) -> str:
    """Return the page."""
    sb3 = columns[0].sb3
    return "\n".join(
        [
            "# What bounds a step of the compiled loop",
            "",
            "Written by `python benchmarks/roofline.py --out docs/results/roofline.md`; do not edit.",
            f"{datetime.date.today()}, {machine()}.",
            "",
            "CartPole-v1, one update per step, batch 32, two layers of 64, replay of 100,000 (the sizes of",
            f"[benchmarks](benchmarks.md)). SB3 takes {sb3:.0f} µs a step ({1e6 / sb3:,.0f} steps/s; by",
            "default from that page). With several seeds, a step is one of any seed, and the seeds share",
            "as many devices as run.py gives them. The fastest of eleven rounds; a part runs in a loop",
            "that has nothing else. The rows marked * include the derivation of a key.",
            "",
            *times(columns),
            "",
            "What operations, products and bytes take by themselves. Operations are those that XLA's",
            "program starts in an iteration, without the redrawing of batches with unusable transitions.",
            "An operation's start is measured with a chain of tiny ones. Products are measured with the",
            "same shapes and axes, in a loop that changes one number of an operand; if the part 'products'",
            "is faster (several seeds at a time), its time counts. This is a rate that XLA reaches here,",
            "not the least time possible: that is the row at the rate of 256 × 256.",
            "",
            *bounds(columns),
            "",
            *(line for column in columns for line in says(column)),
            "",
        ]
    )


if __name__ == "__main__":
    main()
