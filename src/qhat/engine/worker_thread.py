"""A thread that steps environments, and can be left behind where it hangs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class WorkerThread:
    """Does one thing after the other in a thread of its own."""

    def __init__(self):
        self._asked: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[BaseException | None, Any]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int:
        assert self._thread.ident is not None
        return self._thread.ident

    def do(self, act: Callable[[], Result]) -> Result:
        """Wait for what `act` returns or raises, or for `leave`."""
        self._asked.put(act)
        error, result = self._answers.get()
        if error is not None:
            raise error
        return result

    def leave(self, error: BaseException | None = None) -> None:
        """End the thread once it is done; whoever waits in `do` gets `error` now."""
        if error is not None:
            self._answers.put((error, None))
        self._asked.put(None)

    def _work(self) -> None:
        while (act := self._asked.get()) is not None:
            try:
                answer = None, act()
            except BaseException as error:
                answer = error, None
            self._answers.put(answer)
