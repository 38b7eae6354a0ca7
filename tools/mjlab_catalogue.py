"""Write what the installed mjlab has, for `qhat envs`: `python tools/mjlab_catalogue.py`, in mjlab's venv.

One line per id: its observation, its actions, and its time limit in steps.
"""

import json
from pathlib import Path

import qhat.environments.isaaclab as isaaclab
from qhat.environments.catalogue import Entry
from qhat.environments.extras import load
from qhat.environments.isaaclab.mjlab import make
from qhat.environments.make_args import MakeArgs

TARGET = Path(isaaclab.__file__).parent / "mjlab.json"


def main() -> None:
    """Write the table."""
    load("mjlab.tasks", "mjlab")
    lines = []
    for name in load("mjlab.tasks.registry", "mjlab").list_tasks():
        try:
            made = make(Entry(name, "", "", None, "mjlab"), MakeArgs())
            spec = made.spec
            row = [f"{spec.shape} {spec.dtype}", f"({spec.actions.factors},) float32", spec.limit]
            made.close()
        except Exception as error:
            # Some tasks need a file of motions, or sensors that this machine cannot draw.
            print(f"{name}: {type(error).__name__}: {error}")
            row = ["", "", 0]
        lines.append(f"{json.dumps(name)}: {json.dumps(row)}")
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(lines)} tasks in {TARGET.name}")


if __name__ == "__main__":
    main()
