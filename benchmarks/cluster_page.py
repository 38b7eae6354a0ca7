"""The page of `cluster_model.py`: predictions, what saturates, comparison with real runs and papers."""

from __future__ import annotations

import dataclasses
from typing import Any

from cluster_simulation import simulate
from cluster_terms import LEARNER, Costs, Outcome, Place, Policy

ACTORS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
MORE = (4, 16, 64, 256)
"""Steps underway for each actor, in the table of the back-pressure."""
CHECK_CORES = 2.0
FRAMES_EACH_STEP = 4


def page(known: dict[str, Any]) -> str:
    """Return docs/results/cluster_model.md.

    Args:
        known: what `benchmarks/cluster_costs.json` has.
    """
    parts = [_intro(known)]
    cases = {name: Costs(**case["costs"]) for name, case in known["cases"].items()}
    for name, costs in cases.items():
        parts.append(_case(known["cases"][name]["about"], costs))
    parts.append(_underway(cases["small"]))
    parts.append(_costs(cases))
    if "runs" in known:
        parts.append(_runs(known["runs"], cases["small"]))
    parts.append(_papers(cases["frames"]))
    return "\n".join(parts)


def _intro(known: dict[str, Any]) -> str:
    policy = Policy()
    return f"""# How far actors scale: a model

Written by `python benchmarks/cluster_model.py`; do not edit. The costs are of {known["date"]}, on
{known["machine"]}; `--measure` and `--check` measure them and the real runs again.

A simulation of N actors and one learner, event by event, with the learner's loop and the constants of
`src/qhat/cluster/`: two requests for each actor, blocks of about {policy.seconds:g} s, at most
{policy.underway:,} steps underway (or 64 for each copy, if that is more), weights every
{policy.publish:g} s. What takes time is measured with qhat's functions (`benchmarks/cluster_measure.py`).
Every actor has a core on one of 16 machines, one environment, and 10 Gbit/s lead to the learner's machine.
*Full* names what saturates first:

* simulators: the actors are busy all the time, and more of them bring more steps;
* a part of the learner, which is one thread: more actors bring nothing, or less;
* steps underway: both sides wait, because a request takes its time to travel;
* cores, network: these are used up.

*Learner* is the share of the time in which the learner's thread works. *Filled* is the share of its stored
places that have a step: a row has a place for every actor, and costs as much where few of them have one.

*Staleness* is in gradient updates, between the weights that chose an action and the newest published ones
when its block came: mean and largest.
"""


def _table(outcomes: list[Outcome]) -> str:
    lines = [
        "| actors | steps/s | efficiency | block rows | staleness | learner | filled | network | full |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {each.actors:,} | {each.rate:,.0f} | {each.efficiency:.0%} | {each.rows:.1f} |"
        f" {each.staleness:,.0f}, {each.staleness_most:,.0f} | {each.learner_busy:.0%} |"
        f" {each.filled:.0%} | {each.network:.1%} | {each.limit} |"
        for each in outcomes
    ]
    return "\n".join(lines)


def _case(about: str, costs: Costs) -> str:
    outcomes = [simulate(costs, actors) for actors in ACTORS]
    best = max(outcomes, key=lambda each: each.rate)
    shares = sorted(best.shares.items(), key=lambda item: -item[1])[:3]
    parts = ", ".join(f"{LEARNER[part]} {share:.0%}" for part, share in shares)
    updates = 1 / (costs.replay_ratio * costs.update) if costs.update else float("inf")
    return f"""## {about[0].upper()}{about[1:]}

Most steps per second: {best.rate:,.0f}, with N = {best.actors:,}. The learner's time is then
{parts}.
Its gradient updates alone, {costs.replay_ratio:g} a step of {costs.update * 1e6:,.0f} µs, would allow \
{updates:,.0f}.

{_table(outcomes)}
"""


def _underway(costs: Costs) -> str:
    rows = []
    for each in MORE:
        cells = []
        for actors in (64, 256, 1000):
            policy = dataclasses.replace(Policy(), underway=max(Policy().underway, each * actors))
            found = simulate(costs, actors, policy=policy)
            cells.append(
                f"{found.rate:,.0f} ({found.rows:.0f} rows, staleness {found.staleness_most:,.0f})"
            )
        rows.append(f"| {each} | {' | '.join(cells)} |")
    body = "\n".join(rows)
    return f"""## What the limit of steps underway costs

The limit bounds staleness, and so divides a fixed number of steps by the actors: blocks become shorter, and
each costs the learner the same calls of Ray. From some number of actors on, more of them bring fewer steps.
Steps per second of the 5 ms simulator, with a larger limit:

| steps underway for each actor, at least | 64 actors | 256 actors | 1,000 actors |
|---:|---:|---:|---:|
{body}

The first row is the code's. Several environments in each actor (`--num-envs`) lengthen blocks too: rows
count for every copy, and the limit is 4 steps of each.
"""


def _costs(cases: dict[str, Costs]) -> str:
    names = [field.name for field in dataclasses.fields(Costs)]
    lines = [f"| cost | {' | '.join(cases)} |", "|---|" + "---:|" * len(cases)]
    for name in names:
        values = [getattr(costs, name) for costs in cases.values()]
        lines.append(f"| {name} | {' | '.join(_unit(name, value) for value in values)} |")
    table = "\n".join(lines)
    return f"""## The measured costs

`Costs` in `benchmarks/cluster_simulation.py` says what each is.

{table}
"""


def _unit(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return f"{value:,.0f} B"
    if name == "replay_ratio" or name == "idle":
        return f"{value:.3g}"
    for unit, size in (("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def _runs(runs: list[dict[str, Any]], costs: Costs) -> str:
    lines = []
    # What a step of 5 ms takes an actor that nothing disturbs: a sleep ends late.
    costs = dataclasses.replace(costs, wait=max(runs[0]["step"] - costs.work, 0.0))
    for run in runs:
        policy = Policy(underway=run["underway"]) if run["underway"] else Policy()
        found = simulate(costs, run["actors"], place=Place(cores=CHECK_CORES), policy=policy)
        lines.append(
            f"| {run['actors']} | {policy.underway:,} | {run['rate']:,.0f} | {found.rate:,.0f} |"
            f" {found.rate / run['rate'] - 1:+.0%} | {run['staleness']:,} | {found.staleness_most:,.0f} |"
            f" {found.limit} |"
        )
    body = "\n".join(lines)
    return f"""## Beside real runs

Actors that sleep 5 ms in a step, on two Ray nodes of this machine, 11 s after a warm-up of 4 s
(`benchmarks/cluster_check.py`). Here the model has the machine's {CHECK_CORES:.0f} cores for actors,
learner and Ray together, and the time of a step that the run with one actor measured:
{runs[0]["step"] * 1e3:.2f} ms. The work of a step is measured after a wait of the simulator, while nothing
else ran: it takes a core longer than without a wait.

| actors | steps underway | measured steps/s | model | error | measured staleness, most | model | full |
|---:|---:|---:|---:|---:|---:|---:|---|
{body}
"""


def _papers(frames: Costs) -> str:
    # Ape-X: 139 frames/s an actor, blocks of 50 steps, 19 batches of 512 a second beside replay.
    each = FRAMES_EACH_STEP / 139
    apex = dataclasses.replace(
        frames, wait=0.0, work=each, update=1 / 19, replay_ratio=19 / (360 * 139 / FRAMES_EACH_STEP),
    )  # fmt: skip
    whole = dataclasses.replace(Policy(), underway=360 * 50 * 2, seconds=50 * each)
    here, there = simulate(apex, 360), simulate(apex, 360, policy=whole)
    free = dataclasses.replace(apex, update=0.0)
    beside = simulate(free, 360, policy=whole)
    # RLlib: 160,000 frames/s of 256 workers, so at least 156 steps/s each.
    worker = 256 * FRAMES_EACH_STEP / 160_000
    rllib = dataclasses.replace(frames, wait=0.0, work=worker, update=0.0)
    fifty = dataclasses.replace(Policy(), underway=256 * 50 * 2, seconds=50 * worker)
    ours, blocks = simulate(rllib, 256), simulate(rllib, 256, policy=fifty)

    def row(name: str, reported: str, found: Outcome) -> str:
        rate = found.rate * FRAMES_EACH_STEP
        return f"| {name} | {reported} | {rate:,.0f} | {found.filled:.0%} | {found.limit} |"

    rows = "\n".join((
        row("Ape-X, 360 actors, qhat's limit of steps underway", "about 50,000", here),
        row("the same, blocks of 50 steps", "about 50,000", there),
        row("the same, updates on another processor", "about 50,000", beside),
        row("RLlib's Ape-X, 256 workers, qhat's limit, no updates", "160,000", ours),
        row("the same, blocks of 50 steps", "160,000", blocks),
    ))  # fmt: skip
    return f"""## Beside published systems

Frames per second; a step is 4 frames. Ape-X (Horgan et al. 2018, arXiv:1803.00933, §4.1): 360 actors of
about 139 frames per second each, blocks of 50 steps, and a learner with 19 batches of 512 per second.
RLlib (Liang et al. 2018, arXiv:1712.09381): 160,000 frames per second with 256 workers, where its
reference has 45,000 with as many, from a controller that is one thread of Python. The simulator's and the
update's costs are theirs, the costs of Ray, of packing and of storing are those above.

| system | reported | model | filled | full |
|---|---:|---:|---:|---|
{rows}

Where they differ, and why:

* Ape-X's actors write to replay in another process, RLlib's into several, and the controller moves
  references to blocks. In qhat one thread reads, packs and stores every step, so that each is stored one
  time and the updates are exactly those of the replay ratio; its calls of Ray for a block come on top.
* Ape-X does not bound staleness: its actors fetch weights every 400 frames, about 2.8 s. qhat's blocks
  last {Policy().seconds:g} s, which is {Policy().seconds / each:.0f} rows of such an actor: the first and
  the fourth row.
* With long blocks the rows of a call belong to few actors, and most places that the learner stores are
  empty (*filled*). It packs blocks in the order in which they came, and a call takes as many steps as one
  iteration has where that already lasts {Policy().call:g} s.
* Both systems had many machines and a GPU, while the costs here are of one processor with few cores.
"""
