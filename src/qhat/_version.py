"""The version, in the one place that packaging and `qhat --version` read."""

__version__ = "0.2.0"
