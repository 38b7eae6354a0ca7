"""Write what the installed libraries in JAX have, for `qhat envs`: `python tools/jax_catalogue.py`.

One line per id: its observation, its actions, and its time limit in steps (0 for none, or one of its own).
So qhat can list them, and tell a misspelt id, without importing a library, or where one is missing.
"""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import qhat.environments.jax.libraries as libraries
from qhat.environments.catalogue import Entry
from qhat.environments.jax.batch import JaxBatch
from qhat.environments.jax.libraries.make import single
from qhat.environments.spaces import describe

TARGET = Path(libraries.__file__).parent / "tasks.json"
TASKS: dict[str, Callable[[], Any]] = {
    "playground": lambda: import_module("mujoco_playground").registry.ALL_ENVS,
    "brax": lambda: [name for name in import_module("brax.envs")._envs if name != "fast"],
    "jumanji": lambda: import_module("jumanji").registered_environments(),
    "navix": lambda: import_module("navix").registry(),
    "craftax": lambda: [
        f"Craftax-{kind}-v1" for kind in ("Symbolic", "Classic-Symbolic", "Pixels", "Classic-Pixels")
    ],
    "pgx": lambda: import_module("pgx").available_envs(),
}


def main() -> None:
    """Write the table."""
    old = json.loads(TARGET.read_text(encoding="utf-8")) if TARGET.exists() else {}
    table: dict[str, dict[str, list[Any]]] = {}
    for backend, tasks in TASKS.items():
        rows = table[backend] = {}
        for name in sorted(tasks()):
            try:
                batch = JaxBatch(single(Entry(name, "", "", None, backend), {}), 1, id=f"{backend}:{name}")
            except Exception as error:
                # Its models or levels could not be fetched: what an earlier run wrote stays.
                print(f"{backend}:{name}: {error}")
                rows[name] = old.get(backend, {}).get(name, ["", "", 0])
                continue
            space = batch.single.action_space
            said = f"{space} discrete" if isinstance(space, int) else describe(space)
            rows[name] = [f"{batch.spec.shape} {batch.spec.dtype}", said, batch.spec.limit]
        print(f"{backend}: {len(rows)}")
    lines = [
        f"{json.dumps(backend)}: {{\n"
        + ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        + "\n}"
        for backend, rows in table.items()
    ]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
