"""The command line, installed as `sandrun`. Each command is told by its own --help, and imported
when it is named: --version and --help import next to nothing.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

OURS = 125  # the exit code for what is not the job's


class Command(NamedTuple):
    module: str
    does: str  # in `sandrun --help`
    main: str = "main"


COMMANDS = {
    "run": Command("sandrun.commands.run", "run code on the server as if it ran here"),
    "submit": Command("sandrun.commands.run", "have it run, print the job's id", "submit"),
    "logs": Command("sandrun.commands.logs", "what a job has printed; -f: and prints"),
    "status": Command("sandrun.commands.status", "how a job is"),
    "wait": Command("sandrun.commands.logs", "until a job is over; exit as it did", "wait"),
    "get": Command("sandrun.commands.get", "the files that a job has made"),
    "cancel": Command("sandrun.commands.ending", "end a job"),
    "rm": Command("sandrun.commands.ending", "end a job and have it forgotten", "rm"),
    "limits": Command("sandrun.commands.limits", "what the server allows, and what is left of it"),
    "init": Command("sandrun.commands.init", "write a job.json for a folder"),
    "verify": Command("sandrun.verify", "check a receipt, and what was downloaded with it"),
    "mcp": Command("sandrun.mcp", "let agents run code: an MCP server"),
    "completion": Command("sandrun.commands.completion", "what a shell completes"),
    "serve": Command("sandrun.commands.operating", "run a server here", "serve"),
    "keygen": Command("sandrun.commands.operating", "make a worker's key", "keygen"),
    "doctor": Command("sandrun.commands.operating", "say what this machine lacks", "doctor"),
}
_USAGE = "usage: sandrun COMMAND ..., sandrun COMMAND --help, sandrun --version"


def main() -> NoReturn:
    _have_streams()
    try:
        code = _main(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _main(words: Sequence[str]) -> int:
    name, *arguments = words or ["--help"]
    if name in ("-h", "--help", "help"):
        return _print(_help())
    if name in ("-V", "--version", "version"):
        import sandrun

        return _print(f"sandrun {sandrun.__version__}")
    from sandrun.errors import SandrunError

    try:
        if name not in COMMANDS:
            raise _no_such(name)
        command = COMMANDS[name]
        code: int = getattr(import_module(command.module), command.main)(arguments)
        return code
    except SandrunError as error:
        wrong = error
    except ModuleNotFoundError as error:
        wrong = SandrunError(f"{error.name} is not installed: pip install sandrun-server.")
    except OSError as error:
        wrong = SandrunError(f"{error.filename or 'Sandrun'}: {error.strerror}.")
    except UnicodeError as error:
        wrong = SandrunError(f"That is no text that can be sent: {error}.")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        wrong = SandrunError(f"The server's answer is not understood ({why}): is it Sandrun?")
    return _refuse(name, wrong, "--json" in arguments)


def _have_streams() -> None:
    """A standard stream that is closed leaves its number to the next file that is opened, which
    would then be given what the job prints.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if stream:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _help() -> str:
    rows = "\n".join(f"  {name:12}{command.does}" for name, command in COMMANDS.items())
    return (
        f"{_USAGE}\n\nCode in, results out, then everything disappears.\n\n{rows}\n\n"
        "The server: --server, else $SANDRUN_SERVER, [tool.sandrun] in pyproject.toml,\n"
        "sandrun/config.toml in $XDG_CONFIG_HOME or ~/.config, http://localhost:8443."
    )


def _no_such(name: str) -> Exception:
    from sandrun.commands.options import Usage, did_you_mean
    from sandrun.commands.terminal import plain

    if name.startswith("-"):
        return Usage(f"{plain(name)} is no command; options come after it. {_USAGE}.")
    near = did_you_mean(name, list(COMMANDS))
    return Usage(f"There is no command {plain(name)}.{near} sandrun --help has them all.")


def _refuse(name: str, error: Exception, as_json: bool) -> int:
    """The exit code, after saying why."""
    from sandrun.commands.terminal import Terminal, Unwritable
    from sandrun.errors import Refused

    if isinstance(error, Unwritable) and error.is_pipe:
        return 128 + 13  # as if SIGPIPE had ended us
    if as_json and not isinstance(error, Unwritable):
        import json

        problem = dict(error.problem) if isinstance(error, Refused) else {}
        said = {"error": str(error), "reason": _reason(error), **problem}
        _print(json.dumps(said))
    Terminal(quiet=True).warn(str(error))
    return OURS


def _reason(error: Exception) -> str:
    """Usage: usage; ConnectionFailed: connection_failed."""
    letters = [f"_{letter.lower()}" if letter.isupper() else letter
               for letter in type(error).__name__]  # fmt: skip
    return "".join(letters).lstrip("_")


def _print(text: str) -> int:
    """0, also when nobody reads it to the end."""
    try:
        os.write(1, f"{text}\n".encode())
    except OSError:
        pass
    return 0


if __name__ == "__main__":
    main()
