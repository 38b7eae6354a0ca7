"""A thread that steps environments, and can be abandoned if it hangs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class WorkerThread:
    """Runs calls in order on a thread that can be abandoned."""

    def __init__(self):
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[BaseException | None, Any]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int:
        assert self._thread.ident is not None
        return self._thread.ident

    def do(self, act: Callable[[], Result]) -> Result:
        """Run `act` on the thread, and return or raise what it does. `leave` ends the wait."""
        self._calls.put(act)
        error, result = self._answers.get()
        if error is not None:
            raise error
        return result

    def leave(self, error: BaseException | None = None) -> None:
        """End the thread after its current call; a `do` that waits raises `error` now."""
        if error is not None:
            self._answers.put((error, None))
        self._calls.put(None)

    def _work(self) -> None:
        while (act := self._calls.get()) is not None:
            try:
                answer = None, act()
            except BaseException as error:
                answer = error, None
            self._answers.put(answer)
