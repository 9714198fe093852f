"""`sandrun completion`: a script for the shell, made from the parsers of all commands."""

import argparse
from collections.abc import Sequence

from sandrun.__main__ import COMMANDS
from sandrun.commands import ending, get, init, limits, logs, run, status
from sandrun.commands.options import Parser
from sandrun.commands.terminal import say
from sandrun.errors import SandrunError

_SHELLS = ("bash", "zsh", "fish")
_EPILOG = """\
  eval "$(sandrun completion bash)"          sandrun completion fish | source"""


def parser() -> Parser:
    made = Parser("completion", "Print what makes a shell complete sandrun's words.", _EPILOG)
    made.add_argument("shell", choices=_SHELLS)
    return made


def main(arguments: Sequence[str]) -> int:
    asked = parser().parse_args(arguments)
    try:
        import shtab
    except ImportError:
        raise SandrunError("This needs shtab: pip install 'sandrun-server[completion]'.") from None
    say(shtab.complete(_everything(), asked.shell))
    return 0


def _everything() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="sandrun")
    whole.add_argument("--version", action="store_true", help="which one this is")
    below = whole.add_subparsers()
    parsers = {
        "run": run.parser, "submit": run.submit_parser, "logs": logs.parser,
        "status": status.parser, "wait": logs.wait_parser, "get": get.parser,
        "cancel": ending.parser, "rm": ending.rm_parser, "limits": limits.parser,
        "init": init.parser, "completion": parser,
    }  # fmt: skip
    for name, command in COMMANDS.items():
        made = [parsers[name]()] if name in parsers else []
        below.add_parser(name, help=command.does, parents=made, add_help=not made)
    return whole
