"""`sandrun run`: as if the program ran here. Its stdout, its stderr, its exit code. And `submit`,
which does not stay.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from sandrun.client import Client, Job
from sandrun.commands import asking, saving, tokens
from sandrun.commands.options import Parser, Usage, add_json, add_own_words, add_server, split
from sandrun.commands.server import connect
from sandrun.commands.signals import Interrupts
from sandrun.commands.terminal import Terminal, Unwritable, plain, plural, say, size
from sandrun.commands.watching import (
    Watch,
    as_json,
    exit_code,
    outputs_of,
    say_json,
    see_through,
    tell_end,
    tell_warnings,
)
from sandrun.errors import SandrunError
from sandrun.result import Result

_EPILOG = """\
What follows -- goes to the program. A Python program may say at its top how it is to run:
[tool.sandrun] in a "# /// script" block. Of a folder is sent what its .gitignore and
.sandrunignore leave.

exit codes: the program's own; 128 + the signal that ended it; 124 time limit; 137 out of memory;
125 Sandrun itself: usage, the server, what is not verified; 130 Ctrl-C, which cancels the job

  sandrun run hello.py                       sandrun run . -- --epochs 3
  cat hello.py | sandrun run -               sandrun run clean.py --stdin data.csv > clean.csv
  sandrun run plot.py -o out                 sandrun run x.py --json | jq .exit_code"""
_BAR = 24
_DRAWS = 0.1  # seconds after which a bar that has not moved is drawn with the new figures


def parser() -> Parser:
    made = Parser("run", "Run code on the server, as if it ran here.", _EPILOG)
    asking.add_options(made)
    add = made.add_argument
    add("-o", "--out", metavar="DIR", help="save the files that it makes into this folder")
    add("--no-outputs", action="store_true", help="speak of no file that it makes, verify none")
    add("-d", "--detach", action="store_true", help="print the job's id and return: sandrun submit")
    add("--rm", action="store_true", help="have the server forget it as soon as it is over")
    add("--timestamps", action="store_true", help="before each line, the seconds since the start")
    add("--verify", action="store_true", help="check what the worker of --key has signed")
    add("--key", action="append", default=[], metavar="K", help="a worker id, or a file with one")
    _add_common(made)
    return made


def submit_parser() -> Parser:
    made = Parser("submit", "Have code run on the server: prints the job's id and returns.")
    asking.add_options(made)
    _add_common(made)
    return made


def _add_common(made: Parser) -> None:
    add_json(made, "print one JSON object at the end")
    add_own_words(made)
    add_server(made)


def main(arguments: Sequence[str]) -> int:
    words, args = split(arguments)
    asked = parser().parse_args(words)
    if asked.detach and (asked.out or asked.rm or asked.verify):
        raise Usage("--detach does not stay for --out, --rm or --verify.")
    if asked.no_outputs and asked.out:
        raise Usage("--out and --no-outputs cannot both be.")
    if asked.verify and not asked.key:
        raise Usage("--verify needs --key: the id of the worker that you trust, or a file with it.")
    return _submit(asked, args) if asked.detach else _run(asked, args)


def submit(arguments: Sequence[str]) -> int:
    words, args = split(arguments)
    return _submit(submit_parser().parse_args(words), args)


# ---- submitting


def _begin(
    asked: argparse.Namespace, made: asking.Submission, client: Client, terminal: Terminal,
    interrupts: Interrupts,
) -> Job:  # fmt: skip
    """Interrupts stay held: whoever releases them knows the job."""
    terminal.status(f"Sending to {client.server}")
    interrupts.hold()
    job = client.submit(
        made.code, path=made.path, files=made.files and _contents(made), stdin=made.stdin,
        on_upload=_bar(terminal, interrupts.check), **made.manifest,
    )  # fmt: skip
    token, until = job.owner_token or "", job.submitted.get("expires_at", "")
    if not tokens.keep(client.server, job.id, token, until) and asked.detach:
        terminal.note(f"to end it: sandrun cancel {job.id} --token {token}")
    tell_warnings(job.submitted.get("warnings", []), terminal)
    return job


def _bar(terminal: Terminal, check: Callable[[], None]) -> Callable[[int, int], None]:
    drawn, last = 0.0, -1

    def sent(done: int, total: int) -> None:
        nonlocal drawn, last
        full = _BAR * done // total
        if done < total:
            check()  # it can still be broken off: the server has no job of half an upload
            if full == last and time.monotonic() < drawn + _DRAWS:
                return
        drawn, last = time.monotonic(), full
        bar = "#" * full + "-" * (_BAR - full)
        terminal.status(f"Uploading [{bar}] {size(done)} of {size(total)}")

    return sent


def _contents(made: asking.Submission) -> dict[str, os.PathLike[str]]:
    from pathlib import Path

    return {name: Path(path) for name, path in made.files.items()}


def _submit(asked: argparse.Namespace, args: Sequence[str] | None) -> int:
    asked.detach = True
    terminal = Terminal(asked.quiet, asked.color)
    with Interrupts() as interrupts:
        try:
            made = asking.submission(asked, args, terminal)
            if asked.dry_run:
                terminal.clear()
                asking.tell_what_would_be_sent(made, asked.json)
                return 0
            with connect(asked.server, terminal, not asked.no_wait) as client:
                job = _begin(asked, made, client, terminal, interrupts)
                try:
                    interrupts.release()
                    if made.stdin is not None:
                        terminal.status("Sending what it reads")
                    job.fed()
                except KeyboardInterrupt:
                    _cancel(job, terminal)
                    return interrupts.exit_code
                terminal.clear()
                if asked.json:
                    say_json(job.submitted)
                else:
                    say(plain(job.id))
                    terminal.tell(f"to see it: sandrun logs -f {job.id}")
        except KeyboardInterrupt:
            return interrupts.exit_code
        finally:
            terminal.clear()
    return 0


# ---- staying


def _run(asked: argparse.Namespace, args: Sequence[str] | None) -> int:
    terminal = Terminal(asked.quiet, asked.color)
    with Interrupts() as interrupts:
        try:
            made = asking.submission(asked, args, terminal)
            if asked.dry_run:
                terminal.clear()
                asking.tell_what_would_be_sent(made, asked.json)
                return 0
            if asked.verify:
                made.manifest.setdefault("nonce", os.urandom(16).hex())  # it is of this run
            keys = _keys(asked.key)
            if asked.out:
                saving.make(asked.out)
            with connect(asked.server, terminal, not asked.no_wait) as client:
                job = _begin(asked, made, client, terminal, interrupts)
                return _stay(asked, made, keys, job, terminal, interrupts)
        except KeyboardInterrupt:
            return interrupts.exit_code
        finally:
            terminal.clear()


def _stay(
    asked: argparse.Namespace, made: asking.Submission, keys: list[str], job: Job,
    terminal: Terminal, interrupts: Interrupts,
) -> int:  # fmt: skip
    watch = Watch(terminal, not asked.json, asked.timestamps, "Ctrl-C cancels")
    try:
        interrupts.release()
        result = see_through(
            job, watch, f"sandrun logs -f {job.id}",
            log=asked.json or asked.verify,
            download=bool(asked.out or asked.verify) and not asked.no_outputs,
        )  # fmt: skip
        return _conclude(asked, made, keys, job, result, terminal)
    except KeyboardInterrupt:
        _cancel(job, terminal, asked.rm)
        return interrupts.exit_code
    except Unwritable:
        with suppress(SandrunError):
            job.cancel()
        raise


def _conclude(
    asked: argparse.Namespace, made: asking.Submission, keys: list[str], job: Job, result: Result,
    terminal: Terminal,
) -> int:  # fmt: skip
    more: dict[str, object] = {}
    if asked.verify:
        receipt = result.verify(keys, nonce=made.manifest.get("nonce"))
        more["verified"] = receipt.worker
    if asked.out:
        more["saved"] = [saving.save(asked.out, one) for one in result.outputs.values()]
    if asked.rm:
        job.delete()
        tokens.drop(job.id)
    if asked.json:
        say_json(as_json(result, **more))
    else:
        told = ""
        if asked.out:
            told = f"; saved {plural(len(result.outputs), 'file')} to {asked.out}"
        elif not (asked.no_outputs or asked.rm):
            told = outputs_of(result, job.id)
        if asked.verify:
            told += f"; signed by {more['verified']}"
        tell_end(result, terminal, told)
    return exit_code(result)


def _cancel(job: Job, terminal: Terminal, delete: bool = False) -> None:
    """What Ctrl-C does. Another one ends us."""
    terminal.clear()
    terminal.note(f"cancelling {job.id} (Ctrl-C again: leave at once)")
    try:
        if delete:
            job.delete()
        else:
            job.cancel()
    except SandrunError as error:
        terminal.warn(f"it could not be cancelled: {error}")
        return
    if delete:
        tokens.drop(job.id)
    terminal.note("cancelled, and deleted" if delete else "cancelled")


def _keys(given: Sequence[str]) -> list[str]:
    """Worker ids; `given` may name files with them."""
    if not given:
        return []
    from sandrun.verify import read_key

    return [read_key(text) for text in given]
