"""The two forms of a convolution, layer by layer: `python benchmarks/convolutions.py`.

Writes docs/results/convolutions.md: the figures behind `SMALL` in src/qhat/axes/convolution.py.
Each number of threads is measured in a separate process.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qhat.axes import convolution
from qhat.system.devices import prepare
from qhat.system.machine import machine

OUT = Path(__file__).resolve().parent.parent / "docs" / "results" / "convolutions.md"
BATCH, REPEATS, ROUNDS = 32, 5, 7
LAYERS = (
    ("MinAtar", 10, 4, 3, 1, 16, False),
    ("Nature 1 of 36×36", 36, 4, 8, 4, 32, False),
    ("Nature 1", 84, 4, 8, 4, 32, False),
    ("Nature 2", 20, 32, 4, 2, 64, False),
    ("Nature 3", 9, 64, 3, 1, 64, False),
    ("Impala, first", 84, 4, 3, 1, 16, True),
    ("Impala, section 1", 42, 16, 3, 1, 16, True),
    ("Impala, section 2", 21, 32, 3, 1, 32, True),
    ("Impala, section 3", 11, 32, 3, 1, 32, True),
    ("Impala of 40×40, section 3", 5, 32, 3, 1, 32, True),
)
"""Side, channels, kernel, stride, filters, and whether the borders are filled."""


def main() -> None:
    """Measure with one thread and with two; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, help="measure with so many, and print one JSON object")
    options = parser.parse_args()
    if options.threads:
        print(json.dumps(measured(options.threads)))
        return
    columns = []
    for threads in (1, 2):
        command = [sys.executable, __file__, "--threads", str(threads)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        columns.append(json.loads(done.stdout.splitlines()[-1]))
    OUT.write_text(_page(columns[0], columns[1]), encoding="utf-8")
    print(f"Written: {OUT.name}")


def measured(threads: int) -> list[tuple[int, float, float]]:
    """Return, of every layer, the numbers in an image's patches, and milliseconds of both forms."""
    prepare(1, threads=threads)
    import jax

    rows = []
    for _, side, channels, kernel, stride, filters, same in LAYERS:
        parameters = convolution.init(jax.random.key(0), kernel, channels, filters)
        images = jax.random.normal(jax.random.key(1), (BATCH, side, side, channels))
        reached = side if same else convolution.reach(side, kernel, stride)
        patches, both = reached**2 * kernel**2 * channels, []
        # The form is chosen when the function is traced.
        for limit in (patches, 0):
            convolution.SMALL = limit
            both.append(_milliseconds(_loop(stride, same), parameters, images))
        rows.append((patches, *both))
    return rows


def _loop(stride: int, same: bool) -> Callable[[Any, Any], Any]:
    """Return a loop of forward passes with the gradients of weights and images, as training runs it."""
    import jax
    import jax.numpy as jnp

    def loss(parameters: Any, images: Any) -> Any:
        convolved = jax.vmap(lambda image: convolution.convolve(parameters, image, stride, same))(images)
        return jnp.mean(jax.nn.relu(convolved) ** 2)

    def body(carry: Any, _: None) -> Any:
        return jax.tree.map(lambda x, g: x - 1e-6 * g, carry, jax.grad(loss, (0, 1))(*carry)), None

    return lambda parameters, images: jax.lax.scan(body, (parameters, images), None, length=REPEATS)[0]


def _milliseconds(function: Callable[[Any, Any], Any], *arguments: Any) -> float:
    import jax

    from qhat.engine.compiler import compiled

    run, took = compiled(function), []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        took.append(time.perf_counter() - start)
    return 1e3 * min(took[1:]) / REPEATS


def _page(one: list[Any], two: list[Any]) -> str:
    rows = []
    for layer, (patches, product, canonical), (_, product2, canonical2) in zip(
        LAYERS, one, two, strict=True
    ):
        chosen = "product of patches" if patches <= convolution.SMALL else "`correlate`"
        rows.append(
            f"| {layer[0]} | {patches:,} | {product:.2f} | {canonical:.2f} | {product2:.2f} |"
            f" {canonical2:.2f} | {chosen} |"
        )
    return "\n".join(
        [
            "# Two forms of a convolution",
            "",
            "Written by `python benchmarks/convolutions.py`; do not edit.",
            f"{datetime.date.today()}, {machine()}.",
            "",
            "Milliseconds of a forward pass with the gradients of weights and images, batch 32, inside a",
            "compiled loop; the fastest of seven. *Product* is one matrix product of the image's patches;",
            "*correlate* is XLA's convolution in its fast order of axes (`src/qhat/axes/correlation.py`).",
            f"Up to {convolution.SMALL:,} numbers in an image's patches, qhat takes the product: it stays",
            "one operation when seeds are trained together. Whole updates, beside PyTorch:",
            "`python benchmarks/run.py --only updates` (part of `make bench`).",
            "",
            "| layer | numbers in the patches | product, 1 thread | correlate, 1 thread | product, 2 |"
            " correlate, 2 | qhat takes |",
            "|---|---:|---:|---:|---:|---:|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
