"""README.md of an exported folder, for the people who receive it."""

from __future__ import annotations

from typing import Any

from qhat.runtime import kept_by


def card(about: dict[str, Any], proof: dict[str, Any], timing: dict[str, Any]) -> str:
    """Return a text about the policy's inputs and outputs, its proof, and how to run it."""
    observation, actions, alone = about["observation"], about["actions"], proof["episodes"]
    safe, wait = "safe_action=…, ", "timeout=0.2, "
    what = {"frames": "the stack of frames", "memory": "the memory", "": ""}[kept_by(about["network"])[0]]
    begins = again = ""
    if what:
        begins = f"policy.reset()                           # an episode begins: it empties {what}\n"
        again = f"robot.reset()                            # before every episode: it empties {what}\n"
    given = []
    if about["safe_action"] is not None:
        safe, given = "", [f"safe action {about['safe_action']}"]
    if about["timeout"] is not None:
        wait, given = "", [*given, f"timeout {about['timeout']:g} s"]
    folder_safety = f"policy.json sets {' and '.join(given)}. " if given else ""
    period = about["control_period"]
    pace = "The environment declares no control period."
    if period is not None:
        pace = f"One decision every {period:g} s."
    source, graph, numpy = about["source"], proof["onnxruntime"], proof["numpy"]
    takes = f"{observation['dtype']} {tuple(observation['shape'])}"
    worst, numpy_worst = f"{graph['worst']:.1g}", f"{numpy['worst']:.1g}"
    spans = [f"{timing[name]['p50_us']:g} µs in {name}" for name in ("numpy", "onnxruntime")]
    return f"""# {about["name"]}

A policy trained with qhat {about["qhat"]} on {about["environment"]["id"]}: run `{source["run"]}`, recipe
`{source["recipe"]}`, {source["checkpoint"]} weights, step {source["step"]:,}.

```python
from qhat_runtime import Policy, Runner  # the file in this folder; it needs only NumPy

policy = Policy.load(".")
{begins}action = policy.act(observation)         # {takes}, or numbers that fit into it; else PolicyError

robot = Runner(policy, {safe}{wait}safety=None)  # safety: your filter, action → action
{again}robot.observe(observation)               # in the sensor's callback (stamp=time.monotonic())
action = robot.command()                 # in the control loop: never raises
robot.reason                             # why it returned the safe action; else empty
```

{folder_safety}{pace} The watchdog detects late sensors, but not a control loop that hangs: the motors
need a watchdog of their own.

## In

{_observation(observation)}

## Out

{_actions(actions)}

## Proof and speed

The exported policy was compared with the trained one on {graph["observations"]:,} observations
({proof["distinct"]:,} distinct) of {proof["environment"]}.

- onnxruntime: Q-values match within {worst}·max(1, |Q|), and all actions are equal (at
  {graph["near_ties"]:,} near-ties they need not be).
- NumPy, on {numpy["observations"]:,} of these observations: Q-values match within
  {numpy_worst}·max(1, |Q|).
- {alone["played"]} episodes with onnxruntime alone ({alone["whole"]} complete, {alone["steps"]:,} steps):
  the same actions, mean return {alone["mean_return"]:.4g}.

See `parity.json`.

A decision takes {" and ".join(spans)} (median; one thread; {timing["machine"]}).
See `latency.json`.

`policy.json` has the same facts for programs; `policy.onnx` is the whole policy as one graph, from
observation to action; `weights.safetensors` has the weights. Each of the three contains hashes of the
others, so a change is detected.
"""


def _observation(observation: dict[str, Any]) -> str:
    if terms := observation.get("terms"):
        lines = [
            "The array, or a dictionary of what the sensors give at each decision, by name:",
            "`policy.act({…})` clips and scales them, and keeps their histories",
            "until `policy.reset()`, which begins an episode.",
            "",
            "| sensor | numbers | clipped to | then times | readings |",
            "|---|---:|---|---|---:|",
        ]
        for term in terms:
            clip = "" if term["clip"] is None else f"{term['clip'][0]:g} to {term['clip'][1]:g}"
            scale = ", ".join(f"{one:g}" for one in sorted(set(term["scale"])))
            lines.append(f"| `{term['name']}` | {term['size']} | {clip} | {scale} | {term['history']} |")
        return "\n".join(lines)
    names, units = observation["names"], observation["units"] or []
    if (names is None or len(names) > 64) and observation.get("entries"):
        lines = ["The environment's observation, or the array that encodes it:", ""]
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
        + (_drive(*actions["drives"][index]) if actions.get("drives") else "")
        for index, row in enumerate(actions["commands"])
    )


def _drive(scale: float, offset: float) -> str:
    return f"; its position is to be {offset:.4g} + {scale:.4g} × the action"
