"""Pictures of MuJoCo and pygame without a screen."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

from qhat.system.errors import UsageError

OFF_SCREEN = {"MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
"""Settings for MuJoCo and pygame without a screen or loudspeaker, unless the user chose others."""
PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri"
"""Debian's names of what draws MuJoCo's robots without a screen or a graphics card."""


def prepare_drawing() -> None:
    """Let MuJoCo draw off screen. Its library looks for EGL in what the process has loaded.

    Raises:
        UsageError: EGL is not installed.
    """
    if sys.platform != "linux":
        return
    for name, value in OFF_SCREEN.items():
        os.environ.setdefault(name, value)
    try:
        ctypes.CDLL("libEGL.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        raise UsageError(f"Pictures need EGL, which is not installed.{how_to_install()}") from None


def prefer_off_screen() -> None:
    """Do so where EGL is there, before MuJoCo is imported: it asks for a way to draw only then."""
    with contextlib.suppress(OSError, UsageError):
        ctypes.CDLL("libEGL.so.1")
        prepare_drawing()


def how_to_install() -> str:
    """Say how EGL is installed."""
    return f" On Debian and Ubuntu: apt install {PACKAGES}" if sys.platform == "linux" else ""
