"""How a client that waits for a tool is told how far the job is."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from mcp.server.mcpserver import Context

from sandrun.result import StreamName

T = TypeVar("T")
Call = Context[Any, Any]

REPORT_SECONDS = 3.0  # without a report; some clients give up after 60
_LOOK_SECONDS = 1.0  # between two of them
_LINE_CHARACTERS = 200


class Progress:
    """Tells a client that waits how far a job is."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._began = self._reported = time.monotonic()
        self._state = "sending"
        self._line = ""
        self._is_news = True
        self.job = ""

    def event(self, frame: Mapping[str, Any]) -> None:
        if frame["type"] == "status":
            place = f", place {frame['queue_position']}" if frame["status"] == "queued" else ""
            self._state = f"{frame['status']}{place}"
            self._is_news = True

    def output(self, stream: StreamName, data: bytes) -> None:
        end = data[-4 * _LINE_CHARACTERS :].decode("utf-8", "replace").rstrip()
        if end:
            self._line = end.rpartition("\n")[2][-_LINE_CHARACTERS:]
            self._is_news = True

    async def during(self, task: "asyncio.Task[T]") -> T:
        """What the task brings. Whoever ends us does not end it."""
        while not task.done():
            if self._is_news or time.monotonic() > self._reported + REPORT_SECONDS:
                await self._report()
            await asyncio.wait({task}, timeout=_LOOK_SECONDS)
        return task.result()

    async def _report(self) -> None:
        self._is_news = False
        self._reported = time.monotonic()
        seconds = self._reported - self._began
        message = f"{self._state}, {seconds:.0f} s"
        if self.job:
            message += f" ({self.job})"
        if self._line:
            message += f": {self._line}"
        await self._call.report_progress(seconds, None, message)
