"""Bell: wakes everybody who waits for news of a job. It carries nothing: whoever hears it looks.

One future for all, where the channel layer would fill a queue for each: jobs/README.md, Decisions.
"""

import asyncio


class Bell:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None
        self.listeners = 0  # those who come back after each ring

    def next(self) -> "asyncio.Future[None]":
        """What the next ring fulfils, one for all. Take it before you look, and nothing is missed.
        Only wait for it: whoever cancels it, cancels it for everybody.
        """
        if self._next is None or self._next.done():
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    def ring(self) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
