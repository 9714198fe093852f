"""`sandrun mcp`: a server of the Model Context Protocol, with whose tools an agent runs code on a
Sandrun server. Speaks over stdin and stdout, or over streamable HTTP. docs/mcp.md tells more.
"""

import argparse
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from sandrun.client import AsyncClient, Client
from sandrun.errors import SandrunError

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from sandrun.tools import Tools

PATIENCE = 20.0  # seconds that a call may wait where the server is at its limit
OURS = 125  # the exit code that is no job's
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_CANCEL_SECONDS = 3.0


def main(arguments: Sequence[str]) -> int:
    """Serves until stdin ends, or somebody ends it."""
    options = _parser().parse_args(arguments)
    try:
        client = AsyncClient(options.server, patience=PATIENCE)
    except SandrunError as error:
        return _fail(str(error))
    try:
        from sandrun.tools import Tools, build  # takes 1.5 s: the SDK comes with it
    except ModuleNotFoundError as error:
        return _fail(
            f"the MCP server needs what is not installed here ({error.name}): "
            "pip install 'sandrun-server[mcp]'"
        )
    tools = Tools(client)
    _end_with_signals(tools, client.server)
    if options.http:
        host, port = options.http
        return _serve(build(tools), host, port, options.allow_host)
    build(tools).run("stdio")
    return 0


def _end_with_signals(tools: "Tools", url: str) -> None:
    """Takes the jobs along whose callers wait. A thread that reads stdin would keep us here."""

    def end(number: int, _: object) -> NoReturn:
        with Client(url, timeout=_CANCEL_SECONDS) as client:
            for job_id, owner_token in tools.waited_for.items():
                with suppress(SandrunError):
                    client.job(job_id, owner_token).cancel()
        os._exit(128 + number)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)


def _serve(server: "MCPServer[Any]", host: str, port: int, names: Sequence[str]) -> int:
    import uvicorn
    from mcp.server.transport_security import TransportSecuritySettings

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # they are ours

    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        return _fail(f"cannot listen at {host} port {port}: {error}")
    host = f"[{host}]" if ":" in host else host
    port = listening.getsockname()[1]
    # Other names would be a web page's, whose name leads here: it must not run code.
    hosts = [f"{name}:*" for name in (*_LOOPBACK, host, *names)]
    safe = TransportSecuritySettings(
        allowed_hosts=[*hosts, *names],  # without a port, where it is HTTP's own
        allowed_origins=[f"http://{name}" for name in hosts],
    )
    config = uvicorn.Config(
        server.streamable_http_app(transport_security=safe), log_level="warning"
    )
    print(f"sandrun: MCP is ready on http://{host}:{port}/mcp", file=sys.stderr, flush=True)
    Server(config).run(sockets=[listening])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sandrun mcp", allow_abbrev=False,
        description="Serve tools that run code on a Sandrun server to an agent, over MCP: on stdin "
        "and stdout, or with --http.",
    )  # fmt: skip
    parser.add_argument(
        "--http", metavar="HOST:PORT", type=_address,
        help="listen there for streamable HTTP, at /mcp; who can connect can run code",
    )  # fmt: skip
    parser.add_argument(
        "--allow-host", metavar="NAME", action="append", default=[],
        help="with --http: another name by which clients call this server",
    )  # fmt: skip
    parser.add_argument(
        "--server", metavar="URL", help="the Sandrun server, instead of $SANDRUN_SERVER"
    )
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(OURS, f"sandrun mcp: {message}. `sandrun mcp --help` tells more.\n")


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, like 127.0.0.1:8700")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _fail(sentence: str) -> int:
    print(f"sandrun: {sentence}", file=sys.stderr)
    return OURS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
