"""What `run` and `submit` are asked for: their options, and what they make of them."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandrun.client import Manifest
from sandrun.commands import header
from sandrun.commands.options import Usage, megabytes, seconds, whole_seconds
from sandrun.commands.terminal import Terminal, plural, say, size, some
from sandrun.errors import SandrunError
from sandrun.project import Project, collect

_NOTHING = (
    "Nothing to run: name a FILE, a folder (. is this one), an archive, or - for code on standard "
    "input"
)


@dataclass(frozen=True)
class Submission:
    """What the Client is given."""

    code: bytes | None
    path: str | Project | None
    files: Mapping[str, str]  # paths here by paths there
    stdin: bytes | None
    manifest: Manifest


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", nargs="?", metavar="FILE|DIR|ARCHIVE|-", help="what is run; - is code on stdin")
    add("-i", "--interpreter", metavar="NAME", help="else the extension or the first line tells")
    add("-e", "--entrypoint", metavar="PATH", help="what is started; else main.py or the like")
    add("--environment", metavar="NAME", help="an environment of the server")
    add("-f", "--file", action="append", default=[], metavar="PATH[:NAME]",
        help="send this file too, under its name or NAME")  # fmt: skip
    add("--stdin", metavar="FILE", help="what the program reads; - is our standard input")
    add("--env", action="append", default=[], metavar="K[=V]", help="without =V: as it is here")
    add("--outputs", action="append", default=[], metavar="GLOB",
        help="files that count as outputs; else all that it makes")  # fmt: skip
    add("-t", "--timeout", type=whole_seconds, metavar="90s", help="until it is ended")
    add("-m", "--memory", type=megabytes, metavar="512M", help="for all it has, files too")
    add("--cpu", type=seconds, metavar="10s", help="CPU time that it may use")
    add("--ttl", type=whole_seconds, metavar="60s", help="after its end it is remembered so long")
    add("--nonce", metavar="TEXT", help="comes back in the receipt")
    add("--dry-run", action="store_true", help="list what would be sent, and send nothing")
    add("--no-wait", action="store_true", help="where the server is at its limit, fail at once")


def submission(
    asked: argparse.Namespace, args: Sequence[str] | None, terminal: Terminal
) -> Submission:
    """Reads what is to be read here. Raises SandrunError."""
    target: str | None = asked.target
    if target is None:
        here = "" if os.isatty(0) else " (to run what is piped into this: sandrun run -)"
        raise Usage(f"{_NOTHING}{here}.")
    if target == "-" and asked.stdin == "-":
        raise Usage("Standard input cannot be both the code and what the program reads.")
    code = _code(terminal) if target == "-" else None
    path: str | Project | None = None if target == "-" else target
    if path is not None and not os.path.exists(target):
        raise SandrunError(f"There is no {target}.")
    if os.path.isdir(target):
        terminal.status(f"Looking through {target}")
        path = collect(target)
        _tell_project(path, terminal)
    manifest = _manifest(asked, args, _header(target, code, asked.interpreter, terminal))
    files = dict(_file(text) for text in asked.file)
    return Submission(code, path, files, _stdin(asked.stdin), manifest)


def _code(terminal: Terminal) -> bytes:
    if os.isatty(0):
        terminal.note("Reading code from the terminal, Ctrl-D to run")
    code = sys.stdin.buffer.read()
    if not code:
        raise Usage("There is no code on standard input.")
    return code


def _stdin(name: str | None) -> bytes | None:
    if name is None:
        return None
    if name == "-":
        return sys.stdin.buffer.read()
    return _read(name)


def _read(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        raise SandrunError(f"Cannot read {name}: {error.strerror}.") from None


def _file(text: str) -> tuple[str, str]:
    """The name there, and the path here."""
    path, colon, name = text.rpartition(":")
    if not colon or os.path.exists(text):
        path, name = text, os.path.basename(text)
    if not os.path.isfile(path):
        raise SandrunError(f"--file {text}: {path} is no file.")
    return name, path


def _header(
    target: str, code: bytes | None, interpreter: str | None, terminal: Terminal
) -> Mapping[str, Any]:
    if code is None and target.endswith(".py") and os.path.isfile(target):
        code = _read(target)
    if code is None or not (interpreter or "python").startswith("python"):
        return {}
    found = header.read(code)
    if found.dependencies:
        named = some(list(found.dependencies))
        terminal.note(f"the program names dependencies ({named}); the server installs none")
    return found.manifest


def _manifest(
    asked: argparse.Namespace, args: Sequence[str] | None, said: Mapping[str, Any]
) -> Manifest:
    """`said`: by the program itself; what is asked here counts more."""
    env = {**said.get("env", {}), **dict(_variable(text) for text in asked.env)}
    own: dict[str, Any] = {
        "interpreter": asked.interpreter,
        "entrypoint": asked.entrypoint,
        "environment": asked.environment,
        "args": args,
        "env": env or None,
        "outputs": asked.outputs or None,
        "timeout": asked.timeout,
        "memory_mb": asked.memory,
        "cpu_seconds": asked.cpu,
        "ttl": asked.ttl,
        "nonce": asked.nonce,
    }
    manifest: Any = {**said, **{name: value for name, value in own.items() if value is not None}}
    found: Manifest = manifest
    return found


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        if name not in os.environ:
            raise Usage(f"--env {name}: there is no such variable here; --env {name}=VALUE.")
        value = os.environ[name]
    return name, value


# ---- what is told of it


def _tell_project(project: Project, terminal: Terminal) -> None:
    terminal.tell(summary(project))
    if project.withheld:
        named = some(list(project.withheld))
        terminal.warn(f"not sent, as it looks like a secret: {named} (!NAME in a .sandrunignore "
                      "sends it)")  # fmt: skip
    if project.strange:
        terminal.warn(f"not sent, as it is no file of this folder: {some(list(project.strange))}")


def summary(project: Project) -> str:
    """12 files, 38 kB (3,210 ignored, .env withheld)"""
    left = [f"{project.ignored:,} ignored"] if project.ignored else []
    left += [f"{some(list(project.withheld))} withheld"] if project.withheld else []
    more = f" ({', '.join(left)})" if left else ""
    return f"{plural(len(project.entries), 'file')}, {size(project.size)}{more}"


def tell_what_would_be_sent(made: Submission, as_json: bool) -> None:
    if isinstance(made.path, Project):
        files = [(entry.path, entry.size) for entry in made.path.entries]
    elif made.path is not None:
        files = [(os.path.basename(made.path), os.path.getsize(made.path))]
    else:
        files = [("-", len(made.code or b""))]
    files += [(name, os.path.getsize(path)) for name, path in made.files.items()]
    if as_json:
        import json

        rows = [{"path": name, "size_bytes": count} for name, count in files]
        withheld = list(made.path.withheld) if isinstance(made.path, Project) else []
        say(json.dumps({"files": rows, "withheld": withheld, "manifest": made.manifest}))
        return
    from sandrun.commands.terminal import plain

    for name, count in files:
        say(f"{size(count):>8}  {plain(name)}")
    if isinstance(made.path, Project):
        say(summary(made.path))
    else:
        say(f"{plural(len(files), 'file')}, {size(sum(count for _, count in files))}")
