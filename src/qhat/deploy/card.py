"""README.md of an exported folder: for whoever is handed it."""

from __future__ import annotations

from typing import Any


def card(about: dict[str, Any], proof: dict[str, Any], timing: dict[str, Any]) -> str:
    """Say what the policy takes and returns, what was proven, and what to type."""
    observation, actions, alone = about["observation"], about["actions"], proof["episodes"]
    safe, wait = "safe_action=…, ", "timeout=0.2, "
    given = []
    if about["safe_action"] is not None:
        safe, given = "", [f"safe action {about['safe_action']}"]
    if about["timeout"] is not None:
        wait, given = "", [*given, f"timeout {about['timeout']:g} s"]
    folder_safety = f"The folder's own: {', '.join(given)}. " if given else ""
    period = about["control_period"]
    pace = "The environment names no control period."
    if period is not None:
        pace = f"One decision every {period:g} s."
    source, graph, numpy = about["source"], proof["onnxruntime"], proof["numpy"]
    takes = f"{observation['dtype']} {tuple(observation['shape'])}"
    worst, numpy_worst = f"{graph['worst']:.1g}·max(1, |Q|)", f"{numpy['worst']:.1g}"
    spans = [f"{timing[name]['p50_us']:g} µs in {name}" for name in ("numpy", "onnxruntime")]
    return f"""# {about["name"]}

A policy trained with qhat {about["qhat"]} on {about["environment"]["id"]}: run `{source["run"]}`, recipe
`{source["recipe"]}`, {source["checkpoint"]} weights, step {source["step"]:,}.

```python
from qhat_runtime import Policy, Runner  # the file beside this one; it needs NumPy alone

policy = Policy.load(".")
action = policy.act(observation)         # {takes}, or numbers it can hold; else PolicyError

robot = Runner(policy, {safe}{wait}safety=None)  # safety: your own filter, action → action
robot.observe(observation)               # where the sensor's message comes in (stamp=time.monotonic())
action = robot.command()                 # in the control loop: never raises
robot.reason                             # why that was the safe action; empty where it was not
```

{folder_safety}{pace} The watchdog sees sensors that are late, not a control loop that hangs: the motors
need one of their own.

## In

{_observation(observation)}

## Out

{_actions(actions)}

## Proof and speed

On {graph["observations"]:,} observations of {proof["environment"]},
{proof["distinct"]:,} different ones, the values differ from the trained network's by at most
{worst} in onnxruntime; in NumPy, on {numpy["observations"]:,} of them, by {numpy_worst}.
All actions were equal; at {graph["near_ties"]:,} near-ties they need not be.
In {alone["played"]} episodes ({alone["whole"]} of them whole,
{alone["steps"]:,} steps) onnxruntime acted alone: the same actions, mean return {alone["mean_return"]:.4g}.
See `parity.json`.

A decision takes {" and ".join(spans)} (median; one thread; {timing["machine"]}).
See `latency.json`.

`policy.json` says all of this to programs; `policy.onnx` is the whole policy as one graph, from observation
to action; `weights.safetensors` has the numbers. The three hold hashes of one another: a change to one is
found.
"""


def _observation(observation: dict[str, Any]) -> str:
    names, units = observation["names"], observation["units"] or []
    if (names is None or len(names) > 64) and observation.get("entries"):
        lines = ["The environment's own observation, or the array that it is coded as:", ""]
        for entry in observation["entries"]:
            label = ".".join(str(key) for key in entry["path"]) or "observation"
            choices, shape = entry.get("choices", 0), tuple(entry["shape"])
            what = f"one of {choices}" if choices else f"shape {shape}"
            lines.append(f"- `{label}`: {what}, as {entry['dtype']}")
        return "\n".join(lines)
    if names is None or len(names) > 64:
        return f"`{observation['dtype']}` of shape `{tuple(observation['shape'])}`."
    lines = ["| | number | unit | bounds | seen |", "|---|---|---|---|---|"]
    ends = zip(*(observation[end] for end in ("low", "high", "seen_low", "seen_high")), strict=True)
    for index, (low, high, least, most) in enumerate(ends):
        unit = units[index] if units else ""
        bounds = f"{_end(low)} to {_end(high)}" if (low, high) != (None, None) else "none"
        lines.append(f"| {index} | {names[index]} | {unit} | {bounds} | {least:.4g} to {most:.4g} |")
    return "\n".join(lines)


def _end(value: float | None) -> str:
    return "…" if value is None else f"{value:.4g}"


def _actions(actions: dict[str, Any]) -> str:
    start = actions["start"]
    array = f"An array of `{actions['dtype']}` of shape `{tuple(actions['shape'])}`"
    last = [least + count - 1 for least, count in zip(start, actions["choices"], strict=True)]
    if actions["kind"] == "discrete":
        labels = actions["labels"][0] if actions["labels"] else None
        if labels is None:
            return f"A whole number from {start[0]} to {last[0]}."
        return "\n".join(f"- {number}: {label}" for number, label in enumerate(labels, start[0]))
    if actions["kind"] == "multi_discrete":
        return f"{array}: whole numbers, each from {start} to {last}."
    names, units = actions["names"], actions["units"]
    return f"{array}:\n\n" + "\n".join(
        f"- {names[index] if names else f'joint {index}'}: one of {', '.join(f'{one:g}' for one in row)}"
        + (f" {units[index]}" if units else "")
        for index, row in enumerate(actions["commands"])
    )
