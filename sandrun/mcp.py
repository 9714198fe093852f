"""`sandrun mcp`: a server of the Model Context Protocol, with whose tools an agent runs code on a
Sandrun server. Speaks over stdin and stdout, or over streamable HTTP. docs/mcp.md tells more.
"""

import argparse
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from sandrun.client import AsyncClient
from sandrun.errors import SandrunError

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

PATIENCE = 20.0  # seconds that a call may wait where the server is at its limit
OURS = 125  # the exit code that is no job's
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_GRACE_SECONDS = 2  # for calls that are under way when the server is ended


def main(arguments: Sequence[str]) -> int:
    """Serves until stdin ends, or somebody ends it."""
    options = _parser().parse_args(arguments)
    try:
        client = AsyncClient(options.server, patience=PATIENCE)
    except SandrunError as error:
        return _fail(str(error))
    try:
        from sandrun.tools import build  # takes 1.5 s: the SDK comes with it
    except ModuleNotFoundError as error:
        return _fail(
            f"the MCP server needs what is not installed here ({error.name}): "
            "pip install 'sandrun-server[mcp]'"
        )
    try:
        if options.http:
            host, port = options.http
            return _serve(build(client), host, port, options.allow_host)
        build(client).run("stdio")
        return 0
    except KeyboardInterrupt:
        return 130


def _serve(server: "MCPServer[Any]", host: str, port: int, names: Sequence[str]) -> int:
    import uvicorn
    from mcp.server.transport_security import TransportSecuritySettings

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
        server.streamable_http_app(transport_security=safe),
        log_level="warning", timeout_graceful_shutdown=_GRACE_SECONDS,
    )  # fmt: skip
    print(f"sandrun: MCP is ready on http://{host}:{port}/mcp", file=sys.stderr, flush=True)
    uvicorn.Server(config).run(sockets=[listening])
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
