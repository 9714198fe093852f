"""`sandrun limits`: what the server allows, what of it is left to us, and its languages."""

from collections.abc import Iterator, Sequence

from sandrun.api import Json
from sandrun.commands.options import Parser, add_json, add_server
from sandrun.commands.server import connect
from sandrun.commands.terminal import Terminal, plain, say
from sandrun.commands.watching import say_json


def parser() -> Parser:
    made = Parser("limits", "What the server allows, what is left of it, and its languages.")
    add_json(made)
    add_server(made)
    return made


def main(arguments: Sequence[str]) -> int:
    asked = parser().parse_args(arguments)
    with connect(asked.server, Terminal()) as client:
        info, stats = client.info(), client.stats()
        if asked.json:
            say_json({"server": client.server, "limits": info["limits_detail"], **stats,
                      "quotas": info["quotas"], "interpreters": info["interpreters"]})  # fmt: skip
            return 0
        for name, text in (("server", client.server), *_rows(info, stats)):
            say(f"{name:12} {plain(text)}")
    return 0


def _rows(info: Json, stats: Json) -> Iterator[tuple[str, str]]:
    most, ours, system = info["limits_detail"], stats["your_quota"], stats["system"]
    yield "a job", f"{most['timeout_seconds']} s, {most['memory_mb']} MB of memory"
    yield "upload", f"{most['upload_bytes'] >> 20} MB"
    yield "logs", f"{most['log_bytes'] >> 20} MB of stdout, as much of stderr"
    yield "remembered", f"{most['ttl_seconds']} s after its end"
    if ours["enforced"]:
        yield "CPU time", f"{ours['available']:.1f} s left of {ours['limit']:g} s a minute"
        yield "jobs", f"{ours['active_jobs']} of {ours['concurrent_jobs']} at once"
        yield "", f"{ours['jobs_left_this_hour']} left of {ours['jobs_per_hour']} an hour"
        if not ours["can_submit"]:
            yield "now", f"no: {ours['reason']} (in {ours['retry_after']} s)"
    else:
        yield "quota", "none"
    yield "busy", f"{system['active_jobs']} of {system['slots']} running or waiting"
    for name, about in info["interpreters"].items():
        yield name, f"{about['version']}  {' '.join(about['extensions'])}"
