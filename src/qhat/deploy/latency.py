"""Measures how long a decision takes, on this machine, with one thread."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qhat.runtime import Policy
from qhat.system.machine import processor

CALLS, WARM, SECONDS = 10_000, 500, 0.4
"""Largest number of timed decisions, number of warm-up decisions, and seconds after which timing ends."""


def measure(folder: Path, observations: np.ndarray) -> dict[str, Any]:
    """Time `Policy.act` of both runners, one observation at a time."""
    import onnxruntime

    found = {}
    for runtime in ("onnxruntime", "numpy"):
        policy = Policy.load(folder, runtime=runtime, beyond="ignore")
        mask = None
        if policy.about["actions"]["masked"]:
            mask = np.ones((len(policy.choices), max(policy.choices)), bool)
        found[runtime] = timed(lambda row, act=policy.act, mask=mask: act(row, mask), observations)
    return {
        "batch": 1,
        "threads": 1,
        "what": "Policy.act of qhat_runtime.py, checks included",
        "machine": f"{processor()}, {platform.system()} {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        **found,
    }


def timed(act: Callable[[np.ndarray], Any], observations: np.ndarray) -> dict[str, Any]:
    """Return the median, 99th percentile and maximum of single calls, in microseconds."""
    rows = [np.ascontiguousarray(row) for row in observations]
    clock, spans = time.perf_counter_ns, []
    end, busy = time.perf_counter() + SECONDS, time.process_time()
    for call in range(WARM + CALLS):
        row = rows[call % len(rows)]
        begin = clock()
        act(row)
        span = clock() - begin
        if call >= WARM or time.perf_counter() > end:
            spans.append(span / 1_000)
        if time.perf_counter() > end and len(spans) >= 20:
            break
    wall = SECONDS - (end - time.perf_counter())
    p50, p99 = np.percentile(spans, (50, 99))
    return {
        "p50_us": round(float(p50), 2),
        "p99_us": round(float(p99), 2),
        "max_us": round(max(spans), 2),
        "calls": len(spans),
        "cores_used": round((time.process_time() - busy) / wall, 2),
    }
