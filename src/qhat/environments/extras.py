"""Libraries that only some environments need."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import types
import warnings
from typing import Any

from qhat.system.errors import UsageError
from qhat.system.machine import install_command


def load(module: str, env_id: str) -> Any:
    """Import a library. Raises `UsageError` with the command that installs it."""
    library = module.partition(".")[0]
    try:
        with warnings.catch_warnings():
            # What libraries use of each other is not for who trains with them.
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"Environment '{env_id}' needs {module}, which cannot be imported ({error}); type:"
            f" {install_command(library)}"
        ) from None


class _Deferred(types.ModuleType):
    """A module that loads itself at the first use of a name in it.

    `importlib.util.LazyLoader` is of no use here: in Python 3.11 an `import` of what waits loads it.
    """

    def __getattr__(self, name: str) -> Any:
        if name in QUIET:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        _load(self)
        if name in vars(self):
            return vars(self)[name]
        if type(self) is _Deferred:
            # Asked by its own code, half-way: as any module that is being imported answers.
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}' yet")
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        _load(self)
        return sorted(vars(self))


QUIET = {"__path__", "__warningregistry__", "__wrapped__"}
"""What those ask for who look through all modules, or import one within a package that this is not."""
_LOADING = threading.RLock()
_begun: set[str] = set()


def _load(module: types.ModuleType) -> None:
    """Run a deferred module's code once; other threads wait for the end of it."""
    with _LOADING:
        if type(module) is not _Deferred or module.__name__ in _begun:
            return
        spec = module.__spec__
        assert spec is not None
        assert spec.loader is not None
        _begun.add(module.__name__)
        try:
            spec.loader.exec_module(module)
            object.__setattr__(module, "__class__", types.ModuleType)
        finally:
            _begun.discard(module.__name__)


PLOTTING = ("seaborn", "matplotlib", "matplotlib.pyplot", "matplotlib.animation", "matplotlib.colors")
"""What gymnax and minatar import while they are imported, packages before their modules."""


def defer_plotting() -> None:
    """Let the plotting libraries that gymnax and minatar import load when used: two seconds saved."""
    for name in PLOTTING:
        if name in sys.modules:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Deferred
        sys.modules[name] = module
        package, _, short_name = name.rpartition(".")
        if package:
            # As an import would: `import matplotlib.pyplot` binds the package alone.
            setattr(sys.modules[package], short_name, module)
