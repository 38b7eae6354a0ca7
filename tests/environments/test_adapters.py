"""The adapters of other libraries in docs/environments.md: each works as it is written there."""

import re
from pathlib import Path
from typing import Any

import pytest

from qhat.environments.contract import require_contract
from qhat.environments.jax.batch import JaxBatch

# Brax says of itself that it is not maintained, and libraries use what others have deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Brax System:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
PAGE = Path(__file__).parents[2] / "docs" / "environments.md"


def written(name: str) -> str:
    """Return the code of an adapter."""
    section = PAGE.read_text(encoding="utf-8").partition("### Another library in fifteen lines")[2]
    return next(
        one for one in re.findall(r"```python\n(.*?)```", section, re.DOTALL) if f"class {name}(" in one
    )


@pytest.mark.parametrize(
    ("name", "arguments", "limit"),
    [("Gymnax", ("Acrobot-v1",), 100), ("Gymnax", (), 100), ("Brax", (), 1_000), ("Pgx", (), 0)],
)
def test_an_adapter_keeps_the_contract(name: str, arguments: tuple, limit: int) -> None:
    code, found = written(name), {}
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("import")]
    assert len(lines) <= 15
    exec(code, found)
    environment: Any = found[name](*arguments)
    batch = JaxBatch(environment, 3)
    require_contract(batch)
    assert batch.spec.limit == limit
