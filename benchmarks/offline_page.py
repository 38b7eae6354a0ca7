"""Writes docs/results/offline.md from what benchmarks/offline.py kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qhat.evaluation.statistics import iqm
from qhat.evaluation.statistics.bootstrap import bootstrap_ci, stratified_bootstrap_ci

ABOUT = """# Learning from recorded steps alone

Written by `benchmarks/offline.py`; do not edit.

All methods of a set have the same network (two layers of 128; of MinAtar its convolution and one layer),
batches of 64 and as many updates, and train seeds 400 to 404 on the same data. Each method has one setting
for all tasks. Scores are of the last weights (`qhat evaluate --checkpoint last`), and not of those that an
evaluation chose (`best`, the default of `qhat evaluate`): who has only a log has nothing to choose by.
IQM of the seeds' mean returns in fresh greedy episodes [95% interval of the bootstrap over seeds]. All
seeds learn from the same file, so that the interval says nothing of another file.

    python benchmarks/offline_data.py
    python benchmarks/offline.py --d3rlpy
"""
DATA = """## The data

One expert is trained in each task, with its preset and seed 300 (`benchmarks/offline_data.py`). `random` is
uniform actions, `medium` a checkpoint of the expert with 10% of uniform actions, the one that plays nearest
to the middle between the random and the expert's return; `mixed` has a third of its steps from each of
random, medium and expert. Mean returns of episodes [95% interval over episodes].

| task | set | steps | episodes | mean return | `qhat doctor` |
|---|---|---:|---:|---:|---|"""
SCORES = """## Scores

**Bold**: above all others that were run, two or more, by intervals of the difference. `double_dqn` is the
recipe of that name, with `--training logs`.
"""
SPEED = """## Beside d3rlpy

DiscreteCQL of d3rlpy 2.8.1 (`benchmarks/peers/offline_d3rlpy.py`), and the recipe `cql` with the same
settings: Huber loss, 1-step targets, α, γ, network, batches, step sizes, gradient norm and copies of the
target. d3rlpy leaves out the last step of a truncated episode. One thread of PyTorch, and one core for
each; qhat trains five seeds in one program, d3rlpy one after the other. Updates per second of processor
time, which include sampling, and of qhat also compiling and one evaluation. d3rlpy has no actions of
several joints: no WalkerWalk.

| task | set | `cql` as it is | with d3rlpy's settings | d3rlpy | updates/s, qhat | d3rlpy | times |
|---|---|---:|---:|---:|---:|---:|---:|"""
PUBLISHED = """## Published figures

We found none on data that can be had here. The CQL paper
([2006.04779](https://arxiv.org/abs/2006.04779)) reports Atari games on 1% and 10% of the DQN Replay
Dataset ([its code](https://github.com/aviralkumar2907/CQL)); discrete BCQ
([1910.01708](https://arxiv.org/abs/1910.01708)) reports Atari games on the data of one partly trained
policy that the authors made themselves; RL Unplugged
([its page](https://github.com/google-deepmind/deepmind-research/tree/master/rl_unplugged)) reports Atari
games on such replays too. Our tasks are none of these, and our data are our own.
"""
TRIED = """## Settings that were tried

`cql` with seeds 900 and 901 (three with a star), before the rows above, which have other seeds and
episodes: mean return of the last weights, 20 to 25 episodes each (TurtleBot3: 200). 20,000 updates in
CartPole, 30,000 in the others (a dagger: 20,000). What was chosen is above the first row in CartPole and
LunarLander, and below it in TurtleBot3's mixed set; with a smaller α LunarLander is not learned. Empty: not
run.

| loss, α, n | CartPole medium | mixed | LunarLander medium | mixed | TurtleBot3 medium | mixed |
|---|---:|---:|---:|---:|---:|---:|
| Huber, 1, 1: the recipe before, and d3rlpy | | | 122* | 28.9 | 71.0 | 102 |
| Huber, 0.1, 1 | 413* | | | | | |
| squared, 1, 1 | 407* | | 180 | 93.1 | 70.0 | |
| squared, 0.1, 1 | 418 | | −64.3 | | | |
| squared, 0.03, 1 | 301 | | | | | |
| **squared, 1, 5: the recipe** | 481 | 468 | 182 | 224 | 69.5 | 89.2 |
| squared, 3, 5 | | | | 154† | 71.8 | 88.1† |
| squared, 0.3, 5 | | | 18.9 | | 65.4 | |
| squared, 0.1, 5 | 500 | | −73.0 | | 38.1 | |

What is wrong without the term: on CartPole's medium set Q of the recorded actions is 2,000 on average after
20,000 updates of `double_dqn`, where the recorded episodes that ended have a discounted return of 68.1; of
`cql` it is 69.8, with a correlation of 1.00 to those returns (seed 900, on the data that it learned from).
"""
ORDER = ("random", "medium", "mixed")


def page(done: Mapping[str, Any], plans: Mapping[str, Any], methods: Iterable[str]) -> str:
    """Return the page."""
    rows, names = done.get("rows", {}), list(methods)
    lines = [ABOUT, DATA]
    for env in plans:
        lines += described(env, done.get("data", {}).get(env))
    lines += ["", SCORES]
    head = " | ".join(f"`{name}`" for name in names)
    lines += [f"| task | updates | set | data | {head} | `cql` − `bc` | `cql` − `double_dqn` |"]
    lines += ["|---|---:|---|---:" + "|---:" * (len(names) + 2) + "|"]
    for env, plan in plans.items():
        for kind in ORDER:
            lines.append(compared(env, kind, plan, done, names))
    lines += ["", SPEED]
    for env in plans:
        lines += [line for kind in ORDER if (line := beside(env, kind, rows))]
    return "\n".join([*lines, "", TRIED, PUBLISHED])


def described(env: str, about: Mapping[str, Any] | None) -> list[str]:
    """Return the lines of a task's sets."""
    if about is None:
        return [f"| {env} | | | | not made yet | |"]
    lines = []
    for kind, each in about["sets"].items():
        low, high = each["interval"]
        mean = f"{number(each['mean'])} [{number(low)}, {number(high)}]"
        found = "; ".join(each["doctor"]) or "nothing"
        lines.append(f"| {env} | {kind} | {each['rows']:,} | {each['episodes']:,} | {mean} | {found} |")
    return lines


def compared(env: str, kind: str, plan: Any, done: Mapping[str, Any], names: list[str]) -> str:
    """Return the line of a set."""
    rows, about = done.get("rows", {}), done.get("data", {}).get(env)
    found = {name: rows.get(f"{env} {kind} {name}") for name in names}
    scores = {name: row["scores"] for name, row in found.items() if row}
    data = number(about["sets"][kind]["mean"]) if about else ""
    cells = []
    for name in names:
        others = [scores[other] for other in scores if other != name]
        above = name in scores and len(others) > 1
        above = above and all(difference(scores[name], other)[1] > 0 for other in others)
        cells.append(interval(scores.get(name), "**" if above else ""))
    for other in ("bc", "double_dqn"):
        both = "cql" in scores and other in scores
        cells.append(span(*difference(scores["cql"], scores[other])) if both else "")
    return f"| {env} | {plan.updates:,} | {kind} | {data} | {' | '.join(cells)} |"


def beside(env: str, kind: str, rows: Mapping[str, Any]) -> str | None:
    """Return the line of d3rlpy on a set, if it was run."""
    found = [rows.get(f"{env} {kind} {name}") for name in ("cql", "cql_as_d3rlpy", "d3rlpy")]
    ours, theirs = found[1:]
    if ours is None or theirs is None:
        return None
    speeds = [each["updates"] * len(each["scores"]) / each["cpu_seconds"] for each in (ours, theirs)]
    scores = [interval(each["scores"] if each else None) for each in found]
    cells = (*scores, *(f"{speed:,.0f}" for speed in speeds))
    return f"| {env} | {kind} | {' | '.join(cells)} | {speeds[0] / speeds[1]:.1f} |"


def difference(one: list[float], other: list[float]) -> tuple[float, float, float]:
    """Return the difference of two IQMs, and its interval; the seeds are resampled independently."""
    low, high = bootstrap_ci([column(one), column(other)], lambda a, b: iqm(a) - iqm(b)).ravel()
    return float(iqm(one) - iqm(other)), float(low), float(high)


def interval(scores: list[float] | None, mark: str = "") -> str:
    """Return the interquartile mean, and its interval."""
    if scores is None:
        return "not run yet"
    if len(scores) < 2:
        return f"{mark}{number(scores[0])}{mark} (one seed)"
    low, high = stratified_bootstrap_ci(column(scores), iqm).ravel()
    return span(float(iqm(scores)), low, high, mark)


def span(value: float, low: float, high: float, mark: str = "") -> str:
    """Write a value and its interval."""
    return f"{mark}{number(value)}{mark} [{number(low)}, {number(high)}]"


def column(scores: list[float]) -> list[list[float]]:
    """Return scores `[seeds]` as `[seeds, 1]`."""
    return [[each] for each in scores]


def number(value: float) -> str:
    """Write a return with three digits, or without decimals if it has more."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"
