"""Write what the installed EnvPool has, for `qhat envs`: `python tools/envpool_catalogue.py`.

One line per id: its observation, its actions, and its time limit in steps (0 for none). So qhat can list
them, and tell a misspelt id, without the seconds that it takes to import EnvPool, or where it is missing.
"""

import json
from pathlib import Path
from typing import Any

from qhat.environments.extras import load
from qhat.environments.spaces import describe

TARGET = Path(__file__).parent.parent / "src" / "qhat" / "environments" / "envpool" / "envpool.json"


def main() -> None:
    """Write the table."""
    envpool: Any = load("envpool", "all")
    lines = []
    for name in sorted(envpool.list_all_envs()):
        try:
            spec = envpool.make_spec(name)
        except (ImportError, RuntimeError):
            continue  # Procgen wants a system library (Qt 5), VizdoomCustom a scenario.
        observation, action = spec.gymnasium_observation_space, spec.gymnasium_action_space
        limit = int(getattr(spec.config, "max_episode_steps", 0) or 0)
        row = [describe(observation), describe(action), limit]
        lines.append(f"{json.dumps(name)}: {json.dumps(row, ensure_ascii=False)}")
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(lines)} environments in {TARGET.name}")


if __name__ == "__main__":
    main()
