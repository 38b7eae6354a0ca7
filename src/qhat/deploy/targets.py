"""The targets that qhat ships."""

from __future__ import annotations

from qhat.deploy.cpp import Cpp
from qhat.deploy.ros2 import Ros2
from qhat.deploy.target import ExportTarget
from qhat.deploy.web import Web

TARGETS: tuple[ExportTarget, ...] = (Ros2(), Web(), Cpp())
