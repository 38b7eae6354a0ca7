"""From a run to a folder that a robot runs without JAX: docs/export-format.md.

Not named `export`: `qhat.export` is the function.
"""
