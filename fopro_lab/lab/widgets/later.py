"""Slow answers that follow a slider: asked after the last tick, computed beside the kernel."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")
WAIT = 0.25  # seconds after the last tick


class Later(Generic[Question, Answer]):
    """Answers the newest question alone, once no other has come for a while.

    In a kernel's event loop the work runs in one thread, so that ticks are never blocked; what a
    newer question has overtaken is dropped. Without a running loop, as in a script, the answer
    waits for `flush`.

    Args:
        work: Answers a question; asks its second argument now and then whether to go on.
        show: Takes an answer, in the thread of the loop.
        fail: Takes what went wrong.
        wait: Seconds without a new question before the work begins.

    Attributes:
        pending: Whether the last question still waits for its answer.

    Example:
        >>> told = []
        >>> later = Later(lambda x, wanted: x + 1, told.append, fail=print)
        >>> for number in range(3):
        ...     later.ask(number)
        >>> later.flush()
        >>> told
        [3]
    """

    def __init__(
        self,
        work: Callable[[Question, Callable[[], bool]], Answer],
        show: Callable[[Answer], None],
        *,
        fail: Callable[[Exception], None],
        wait: float = WAIT,
    ) -> None:
        self.pending = False
        self._work, self._show, self._fail, self._wait = work, show, fail, wait
        self._number = 0
        self._question: Question | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._threads: ThreadPoolExecutor | None = None

    def ask(self, question: Question) -> None:
        """Put a question in the place of the last one."""
        self._number += 1
        self._question, self.pending = question, True
        self._stop_timer()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._timer = loop.call_later(self._wait, self._start, loop, self._number, question)

    def flush(self) -> None:
        """Answer what waits, here and now."""
        self._stop_timer()
        if not self.pending:
            return
        self._number += 1  # what a thread is at comes too late
        try:
            answer = self._work(self._question, lambda: True)  # type: ignore[arg-type]
        except Exception as error:
            self._end(error=error)
        else:
            self._end(answer=answer)

    def _start(self, loop: asyncio.AbstractEventLoop, number: int, question: Question) -> None:
        self._timer = None
        self._threads = self._threads or ThreadPoolExecutor(1, thread_name_prefix="explorer")
        future = self._threads.submit(self._work, question, lambda: number == self._number)
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._done, number, done))

    def _done(self, number: int, future: "Future[Answer]") -> None:
        if number != self._number:
            return
        error = future.exception()
        if isinstance(error, Exception):
            self._end(error=error)
        else:
            self._end(answer=future.result())

    def _end(self, *, answer: Answer | None = None, error: Exception | None = None) -> None:
        self.pending, self._question = False, None
        if error is not None:
            self._fail(error)
        else:
            self._show(answer)  # type: ignore[arg-type]

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
