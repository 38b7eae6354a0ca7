"""Protects the public names of the axes: what docs/extending.md tells people to import."""

from __future__ import annotations

import inspect
import subprocess
import sys

from qhat import axes
from qhat.recipes.recipe import AXES


def test_every_base_class_and_value_is_a_public_name():
    missing = set()
    for axis, kinds in AXES.items():
        bases = {base for kind in kinds for base in kind.__mro__ if "axis" in vars(base)}
        assert len(bases) == 1, axis
        for kind in (*bases, *kinds):
            if getattr(axes, kind.__name__, None) is not kind or kind.__name__ not in axes.__all__:
                missing.add(kind.__name__)
    assert not missing, f"qhat.axes lacks {sorted(missing)}; add them to axes/__init__.py"


def test_every_public_name_is_there_and_every_table_too():
    assert all(hasattr(axes, name) for name in axes.__all__)
    tables = [getattr(axes, name) for name in axes.__all__ if name.isupper() and name not in ("MLP", "GRU")]
    assert sorted(map(str, tables)) == sorted(map(str, AXES.values()))
    assert all(inspect.isclass(kind) for table in tables for kind in table)


def test_they_are_imported_without_jax():
    code = "import sys; from qhat.axes import Head, Categorical, POLICIES; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
