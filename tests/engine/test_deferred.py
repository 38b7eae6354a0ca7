"""Protects against runs that wait two seconds for plotting libraries; plots must still find them."""

import subprocess
import sys

CODE = """
import sys
from qhat.environments.make import make
make("CartPole-v1", 1)
assert not {"scipy.stats", "seaborn.palettes", "matplotlib.figure"} & set(sys.modules)
import matplotlib.pyplot
import seaborn
import warnings
with warnings.catch_warnings(record=True):
    assert not hasattr(seaborn, "__warningregistry__")
assert "scipy.stats" not in sys.modules, "an import alone loads them"
import concurrent.futures
with concurrent.futures.ThreadPoolExecutor(6) as pool:
    drawing = list(pool.map(lambda _: matplotlib.pyplot.figure, range(6)))
assert len({*drawing}) == 1
from matplotlib.pyplot import *
assert figure is matplotlib.pyplot.figure
assert seaborn.__version__, "dunder names are its own too"
assert "color_palette" in dir(seaborn)
assert len(seaborn.color_palette(n_colors=3)) == 3
assert sys.modules["seaborn"] is seaborn
import seaborn.palettes
assert seaborn.palettes.color_palette is seaborn.color_palette
"""


def test_plotting_libraries_wait_for_their_first_use() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
