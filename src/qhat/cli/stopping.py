"""Ctrl-C and SIGTERM: the first stops after a checkpoint, the second immediately."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time


class StopOnSignal:
    """Remembers the first SIGINT or SIGTERM; a second one ends the process immediately.

    Python runs signal handlers only between its bytecodes, so not during a compiled call or a compilation:
    a thread reads the signal numbers from a socket instead.
    """

    MIN_GAP = 0.2
    """Seconds below which two signals count as one: some programs signal a process and also its group."""

    def __init__(self):
        self.signal: int | None = None
        read, self._written = socket.socketpair()
        self._written.setblocking(False)
        signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, args=(read,), daemon=True).start()

    def __call__(self) -> bool:
        return self.signal is not None

    def _listen(self, read: socket.socket) -> None:
        first = 0.0
        while received := read.recv(1):
            number = received[0]
            if number not in (signal.SIGINT, signal.SIGTERM):
                continue
            if self.signal is None:
                self.signal, first = number, time.monotonic()
                print("\nStopping after a checkpoint; Ctrl-C again stops immediately.", file=sys.stderr)
            elif time.monotonic() - first > self.MIN_GAP:
                os._exit(128 + number)

    @property
    def exit_code(self) -> int:
        return 0 if self.signal is None else 128 + self.signal
