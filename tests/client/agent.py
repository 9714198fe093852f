"""Agent: the MCP SDK's own client, connected to `sandrun mcp` for as long as a module of tests."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from mcp import Client, StdioServerParameters
from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, ImageContent, ResourceLink, TextContent

COMMAND = [sys.executable, "-I", "-m", "sandrun", "mcp"]
SECONDS = 60

T = TypeVar("T")


class Agent:
    """Lives in a loop and a thread of its own; what is asked of it waits like a function."""

    def __init__(self, server: str | StdioServerParameters | MCPServer[Any], mode: str) -> None:
        self._server = server
        self._mode = mode
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()))
        self._thread.start()
        self._ready.result(SECONDS)

    async def _live(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with Client(self._server, mode=self._mode) as self.client:
                self._ready.set_result(None)
                await self._over.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(SECONDS)

    def ask(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(SECONDS)

    def begin(
        self, tool: str, told: Callable[[str], object], **arguments: Any
    ) -> "Future[CallToolResult]":
        """A call that goes on; `told` is called with each message of its progress."""

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            told(message or "")

        return asyncio.run_coroutine_threadsafe(
            self.client.call_tool(tool, arguments, progress_callback=progress), self._loop
        )

    def call(self, tool: str, **arguments: Any) -> CallToolResult:
        return self.ask(self.client.call_tool(tool, arguments))

    def text(self, tool: str, **arguments: Any) -> str:
        """The text of an answer that is no error."""
        result = self.call(tool, **arguments)
        assert not result.is_error, result
        return text(result)


def text(result: CallToolResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, TextContent))


def pictures(result: CallToolResult) -> list[ImageContent]:
    return [block for block in result.content if isinstance(block, ImageContent)]


def links(result: CallToolResult) -> list[ResourceLink]:
    return [block for block in result.content if isinstance(block, ResourceLink)]


@contextmanager
def connected(
    server: str | StdioServerParameters | MCPServer[Any], mode: str = "auto"
) -> Iterator[Agent]:
    agent = Agent(server, mode)
    try:
        yield agent
    finally:
        agent.end()


@contextmanager
def serving(url: str) -> Iterator[str]:
    """`sandrun mcp --http`: its URL."""
    command = [*COMMAND, "--http", "127.0.0.1:0", "--allow-host", "box.example", "--server", url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            line = process.stderr.readline()
            assert "MCP is ready on " in line, line + process.stderr.read()
            yield line.split()[-1]
        finally:
            process.terminate()
            process.wait(10)
            rest = process.stderr.read()
    assert "Traceback" not in rest, rest
