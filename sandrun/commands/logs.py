"""`sandrun logs` and `sandrun wait`: a job that was submitted before. Ctrl-C stops looking; the job
goes on.
"""

import json
from collections.abc import Sequence

from sandrun.api import Json
from sandrun.commands.options import Parser, Usage, add_job, add_json, add_own_words, add_server
from sandrun.commands.server import connect
from sandrun.commands.terminal import Terminal, put, say
from sandrun.commands.watching import (
    Watch,
    as_json,
    exit_code,
    outputs_of,
    say_json,
    see_through,
    streams,
    tell_end,
)
from sandrun.lines import STREAMS

_LOGS = """\
With -f it exits as the job does (see sandrun run --help), without it with 0. Ctrl-C stops looking,
the job goes on."""
_WAIT = "It exits as the job does (see sandrun run --help). Ctrl-C stops waiting, the job goes on."


def parser() -> Parser:
    made = Parser("logs", "What a job has printed: its stdout and its stderr.", _LOGS)
    add_job(made)
    made.add_argument("-f", "--follow", action="store_true", help="and what it prints, to its end")
    made.add_argument(
        "--since", type=int, default=0, metavar="SEQ", help="with -f: only what follows"
    )
    made.add_argument("--timestamps", action="store_true", help="with -f: before each line")
    add_json(made, "one object; with -f a line for all that happens (Frame in docs/api.md)")
    add_own_words(made)
    add_server(made)
    return made


def wait_parser() -> Parser:
    made = Parser("wait", "Wait until a job is over.", _WAIT)
    add_job(made)
    add_json(made, "print what came of it")
    add_own_words(made)
    add_server(made)
    return made


def main(arguments: Sequence[str]) -> int:
    asked = parser().parse_args(arguments)
    if not asked.follow and (asked.since or asked.timestamps):
        raise Usage("--since and --timestamps go with --follow.")
    terminal = Terminal(asked.quiet, asked.color)
    with connect(asked.server, terminal) as client:
        job = client.job(asked.job)
        if not asked.follow:
            kept = {stream: job.log(stream) for stream in STREAMS}
            if asked.json:
                say_json(streams(**kept))
            else:
                put(1, kept["stdout"])
                put(2, kept["stderr"])
            return 0
        watch = Watch(terminal, not asked.json, asked.timestamps, "Ctrl-C stops looking")

        def on_frame(frame: Json) -> None:
            watch(frame)
            if asked.json:
                say(json.dumps(frame))

        try:
            result = see_through(
                job, on_frame, _again(asked.job), log=False, since=asked.since, download=False
            )
        except KeyboardInterrupt:
            terminal.clear()
            terminal.note(f"still running. To go on: {_again(asked.job, watch.seq)}")
            return 130
        if not asked.json:
            tell_end(result, terminal, outputs_of(result, job.id))
        return exit_code(result)


def wait(arguments: Sequence[str]) -> int:
    asked = wait_parser().parse_args(arguments)
    terminal = Terminal(asked.quiet, asked.color)
    watch = Watch(terminal, False, hint="Ctrl-C stops waiting")
    with connect(asked.server, terminal) as client:
        job = client.job(asked.job)
        try:
            result = see_through(
                job, watch, f"sandrun wait {asked.job}", log=asked.json, download=False
            )
        except KeyboardInterrupt:
            terminal.clear()
            terminal.note(f"still running. To go on: sandrun wait {asked.job}")
            return 130
    terminal.clear()
    if asked.json:
        say_json(as_json(result))
    else:
        tell_end(result, terminal, outputs_of(result, job.id))
    return exit_code(result)


def _again(job: str, seq: int = 0) -> str:
    return f"sandrun logs -f {job}{f' --since {seq}' if seq else ''}"
