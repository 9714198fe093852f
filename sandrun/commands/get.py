"""`sandrun get`: the files that a job has made."""

import hashlib
from collections.abc import Sequence

from sandrun.api import Json
from sandrun.client import Job
from sandrun.commands import saving
from sandrun.commands.options import (
    Parser,
    Usage,
    add_job,
    add_json,
    add_own_words,
    add_server,
    did_you_mean,
)
from sandrun.commands.server import connect
from sandrun.commands.terminal import Terminal, plain, plural, put, say, size
from sandrun.commands.watching import say_json
from sandrun.errors import NotVerified, SandrunError
from sandrun.result import Output, path_of

_EPILOG = """\
Without --out one PATH goes to stdout, and without PATH all are listed. What has the same name in
DIR is replaced: give it a folder of its own.

  sandrun get job-... plot.png > plot.png    sandrun get job-... -o out"""


def parser() -> Parser:
    made = Parser("get", "The files that a job has made.", _EPILOG)
    add_job(made)
    made.add_argument("paths", metavar="PATH", nargs="*", help="one of them; all, without any")
    made.add_argument("-o", "--out", metavar="DIR", help="save them into this folder")
    add_json(made, "list them as JSON")
    add_own_words(made)
    add_server(made)
    return made


def main(arguments: Sequence[str]) -> int:
    asked = parser().parse_args(arguments)
    if len(asked.paths) > 1 and not asked.out:
        raise Usage("Only one file can go to standard output; -o DIR takes more.")
    if asked.json and asked.paths and not asked.out:
        raise Usage("--json lists files; it does not print one.")
    terminal = Terminal(asked.quiet, asked.color)
    if asked.out:
        saving.make(asked.out)
    with connect(asked.server, terminal) as client:
        job = client.job(asked.job)
        listed = job.outputs()
        rows = _chosen(listed, asked.paths, job)
        if asked.out:
            for row in rows:
                terminal.status(f"Fetching {row['path']} ({size(row['size_bytes'])})")
                row["saved"] = saving.save(asked.out, _output(job, row))
            terminal.tell(f"saved {plural(len(rows), 'file')} to {asked.out}")
        elif asked.paths:
            put(1, _output(job, rows[0]).bytes)
            return 0
    if asked.json:
        say_json(rows)
    elif not asked.out:
        for row in rows:
            say(f"{size(row['size_bytes']):>8}  {plain(row['path'])}")
    return 0


def _chosen(listed: list[Json], paths: Sequence[str], job: Job) -> list[Json]:
    by_path = {row["path"]: row for row in listed}
    for path in paths:
        if path not in by_path:
            running = job.status()["status"] in ("queued", "running")
            why = " It is not over yet." if running else did_you_mean(path, list(by_path))
            raise SandrunError(f"The job has made no {path}.{why}")
    return [by_path[path] for path in paths] or listed


def _output(job: Job, row: Json) -> Output:
    """With its bytes, which are what the server said they are."""
    data = job.download(path_of(row["download_url"]).decode("utf-8", "surrogateescape"))
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise NotVerified("differs", f"{row['path']} was altered on its way.")
    return Output(
        row["path"], row["size_bytes"], row["sha256"], row["mime_type"], row["download_url"], data
    )
