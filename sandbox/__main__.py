"""Run one command alone, without a server, and print the result as JSON: the first thing to try
when a sandbox does not do what it should.

    sudo .venv/bin/python -m sandbox run [options] -- CMD [ARG...]

Exit code 0 when the command ran (the JSON says how it ended), 1 when a wall could not be put up.
"""

import argparse
import asyncio
import base64
import json
import os
import socket
import sys
from typing import Any

from sandbox.channel import LAUNCHER_FD
from sandbox.errors import BundleRefused, SandboxError
from sandbox.model import MIB, Bundle, Command, Limits
from sandbox.runtimes import BASE_ENV


def main() -> None:
    """Hand over to the keeper; it starts us again, unprivileged and with a launcher."""
    arguments = _parser().parse_args()
    fd = os.environ.get(LAUNCHER_FD)
    if fd is None:
        again = [sys.executable, "-I", "-m", "sandbox", *sys.argv[1:]]
        os.execv(sys.executable, [sys.executable, "-I", "-m", "sandbox.keeper", "--", *again])
    code, answer = asyncio.run(_run(socket.socket(fileno=int(fd)), arguments))
    print(json.dumps(answer, indent=2))
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", allow_abbrev=False)
    run = parser.add_subparsers(required=True, metavar="run").add_parser("run", allow_abbrev=False)
    run.add_argument("--memory-mb", type=int, default=512)
    run.add_argument("--disk-mb", type=int, default=100)
    run.add_argument("--tasks", type=int, default=32)
    run.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS")
    run.add_argument("--cpu-seconds", type=float, default=0.0, metavar="SECONDS")
    run.add_argument("command", nargs="+", metavar="CMD")
    return parser


async def _run(channel: socket.socket, arguments: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    limits = Limits(
        memory_bytes=arguments.memory_mb * MIB,
        disk_bytes=arguments.disk_mb * MIB,
        tasks=arguments.tasks,
        cpu_seconds=arguments.cpu_seconds,
        wall_seconds=arguments.timeout,
    )
    logs = {"stdout": bytearray(), "stderr": bytearray()}

    def keep(stream: str, view: memoryview) -> None:
        logs[stream] += view[: 10 * MIB - len(logs[stream])]

    # Imported here: the parent that only hands over needs none of it.
    from sandbox.sandbox import Sandbox

    sandbox = Sandbox(channel)
    empty = os.memfd_create("bundle", os.MFD_CLOEXEC)
    try:
        await sandbox.start()
        command = Command(steps=(tuple(arguments.command),), env=BASE_ENV)
        result = await sandbox.run(command, Bundle("loose", empty, ()), limits, on_output=keep)
    except (SandboxError, BundleRefused) as error:
        return 1, {"error": str(error), "step": getattr(error, "step", None)}
    return 0, {
        **result.verdict._asdict(),
        "usage": result.usage._asdict(),
        "limits_hit": result.limits_hit,
        "stdout": _text(logs["stdout"]),
        "stderr": _text(logs["stderr"]),
        "outputs": {
            output.path: {
                "size": output.size,
                "sha256": output.sha256,
                "base64": base64.b64encode(
                    os.pread(result.outputs.fd, min(output.size, 4096), output.offset)
                ).decode(),
            }
            for output in result.outputs.files
        },
        "outputs_truncated": result.outputs.truncated,
        "notes": result.notes,
        "walls": sandbox.walls,
    }


def _text(data: bytearray) -> str:
    return data.decode(errors="replace")


if __name__ == "__main__":
    main()
