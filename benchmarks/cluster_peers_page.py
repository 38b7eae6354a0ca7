"""The page of `cluster_peers.py`: medians, ratios to qhat, every seed, and the settings."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from contenders import CLUSTER_PARTS, Contender
from tables import Results, Table, spread

SETTINGS = """## Settings

The runners take 0.1 of Ray's CPUs each, which limits nothing: all of them share the cores with the learner.
Each system has settings with which it learns CartPole-v1 well; the docstrings of the scripts have more.

- qhat (`benchmarks/cluster_qhat.py`): the defaults of `qhat train`. Double DQN, two layers of 64, uniform
  replay of 100,000, batch 64, returns of up to 3 steps, Adam 1e-3 falling to 1e-4 in 50,000 steps, target
  every 500 updates, one update per environment step. Of its two actors the epsilons fall to 0.4 and
  0.0007. It ends after 50,000 steps.
- RLlib (`benchmarks/peers/rllib_cluster.py`): its tuned example for CartPole-v1. Double, dueling,
  prioritised replay of 50,000, n from 2 to 4, layers of 256, batch 32, target every 500 steps. Changed,
  because it then learned sooner: learning rate 1e-3 (5e-4), epsilon to 0.05 in 5,000 steps (25,000), one
  update per two environment steps (one per five).
- TorchRL (`benchmarks/peers/torchrl_cluster.py`): its example's network (120 and 84 units) and its
  asynchronous collector for Ray; the runners work while the learner learns. Double DQN, uniform replay of
  50,000, batch 64, three-step returns, Adam 1e-3, epsilon to 0.05 in 5,000 steps, target every 100 updates,
  one update per environment step. The example's other values are for 500,000 steps.

On the 5 ms simulator every system has one update per environment step, and the same batches and networks
as above.
"""


def page(contenders: Sequence[Contender], results: Results, facts: dict[str, str], first_seed: int) -> str:
    """Return docs/results/cluster_peers.md.

    Args:
        facts: command, date, machine, load, and the versions of qhat and of the peers.
    """
    lines = [
        "# Beside RLlib and TorchRL on a Ray cluster", "",
        f"Written by `{facts['command']}` on {facts['date']}; {facts['machine']}. Do not edit.", "",
        "Three DQNs with environment runners on a local Ray cluster of this machine. Each measurement is a"
        " separate process; the systems take turns, in the opposite order every other round. A figure is"
        " the median of the rounds, beside it the lowest and the highest; a ratio is the median of the"
        " ratios within each round. Quote the ratios: the figures belong to the machine.", "",
        f"- processors in use before the start: {facts['load']}",
        f"- qhat's environment: {facts['qhat']}",
        f"- the peers' environment: {facts['peers']}", "",
    ]  # fmt: skip
    for part in CLUSTER_PARTS:
        if members := [each for each in contenders if each.part == part]:
            made = cartpole(members, results) if part == "cartpole" else slow(members, results)
            lines += [made.markdown(), ""]
            if part == "cartpole":
                lines += [each_seed(members, results, first_seed).markdown(), ""]
    return "\n".join([*lines, SETTINGS])


def cartpole(members: Sequence[Contender], results: Results) -> Table:
    """Seconds until the goal, by both clocks."""
    rows = []
    for each in members:
        found = results[each.name]
        row = [each.label]
        for clock in ("seconds", "total_seconds"):
            row += [_until(found, clock), _times(found, results[members[0].name], clock)]
        reached: list[dict | None] = [one for one in found if one and one["reached"]]
        steps = spread(reached, lambda one: one["steps"], 0) if reached else "–"
        rows.append((*row, steps))
    return Table(
        "CartPole-v1 until 475, 2 runners",
        "Until the mean return of 20 greedy episodes is at least 475, evaluated every 2,500 steps."
        " *Seconds* begin when the libraries are imported and Ray runs, the total with the process. Both"
        " include the start of the runners, compilation (with an empty cache) and the evaluations. The"
        " peers' learner plays the 20 episodes at the same time; qhat's two actors play 10 each.",
        ("system", "seconds", "× qhat's", "seconds in total", "× qhat's", "environment steps"),
        rows,
    )


def each_seed(members: Sequence[Contender], results: Results, first_seed: int) -> Table:
    """What every seed took."""
    rows = []
    for each in members:
        for turn, one in enumerate(results[each.name]):
            seed = str(first_seed + turn)
            if one is None:
                rows.append((each.label, seed, "failed", "–", "–", "–", "–"))
                continue
            until = f"{one['seconds']:.1f}"
            first, steps, updates = one["first_steps"], one["steps"], one["updates"]
            rows.append(
                (
                    each.label,
                    seed,
                    until if one["reached"] else f"not reached in {until} s",
                    "–" if first is None else f"{first:.1f}",
                    f"{steps:,}",
                    f"{updates:,}",
                    f"{one['score']:.1f}",
                )
            )
    return Table(
        "Every seed",
        "*First steps*: seconds until the learner was seen to have environment steps. The runners start"
        " before that, and qhat compiles; qhat says so after up to a second of training.",
        ("system", "seed", "seconds", "first steps", "environment steps", "updates", "best evaluation"),
        rows,
    )


def slow(members: Sequence[Contender], results: Results) -> Table:
    """Steps per second, and how many times the system's qhat's are."""

    def speed(one: dict[str, Any]) -> float:
        return one["steps_per_second"]

    runners = members[0].part.partition("-")[2]
    rows = []
    for each in members:
        found = results[each.name]
        pairs = zip(results[members[0].name], found, strict=True)
        ratios = [speed(ours) / speed(theirs) for ours, theirs in pairs if ours and theirs]
        rows.append(
            (
                each.label,
                spread(found, speed, 0),
                f"{statistics.median(ratios):.2f}" if ratios else "–",
                spread(found, lambda one: one["updates"] / one["steps"], 2),
            )
        )
    return Table(
        f"A simulator that waits 5 ms, {runners} runners",
        "Environment steps per second with learning, after 2,000 steps, for at most 30 s. Without"
        f" anything else {runners} runners could do {int(runners) * 200:,}.",
        ("system", "steps/s", "qhat's speed ÷ it", "updates per step"),
        rows,
    )


def _until(found: list[dict | None], clock: str) -> str:
    """Median, lowest and highest seconds; a seed without the goal took longer than all others."""
    values = sorted(one[clock] if one["reached"] else math.inf for one in found if one)
    if not values:
        return "failed"
    longest = max(one[clock] for one in found if one)

    def text(value: float) -> str:
        return f"not reached in {longest:.0f} s" if math.isinf(value) else f"{value:.1f}"

    # Of an even number the later one: infinity has no middle.
    middle, low, high = values[len(values) // 2], values[0], values[-1]
    return f"{text(middle)} ({text(low)}–{text(high)})" if low < high else text(middle)


def _times(found: list[dict | None], ours: list[dict | None], clock: str) -> str:
    """Median of the ratios to qhat's seconds: `>` or `<` where a seed ended before the goal."""
    pairs = [(one, our) for one, our in zip(found, ours, strict=True) if one and our]
    if not pairs:
        return "–"
    late = {side for pair in pairs for side in (0, 1) if not pair[side]["reached"]}
    if late == {0, 1}:
        return "–"
    sign = {(): "", (0,): "> ", (1,): "< "}[tuple(late)]
    return f"{sign}{statistics.median(one[clock] / our[clock] for one, our in pairs):.2f}"
