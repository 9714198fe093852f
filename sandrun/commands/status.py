"""`sandrun status`: how a job is, now."""

from collections.abc import Sequence

from sandrun.commands.options import Parser, add_job, add_json, add_server
from sandrun.commands.server import connect
from sandrun.commands.terminal import Terminal, plain, say, size
from sandrun.commands.watching import say_json
from sandrun.result import result_of


def parser() -> Parser:
    made = Parser("status", "How a job is, now. Exits with 0, whatever became of the job.")
    add_job(made)
    add_json(made, "print all that the server says (Status in docs/api.md)")
    add_server(made)
    return made


def main(arguments: Sequence[str]) -> int:
    asked = parser().parse_args(arguments)
    with connect(asked.server, Terminal()) as client:
        status = client.job(asked.job).status()
    if asked.json:
        say_json(status)
        return 0
    rows = [("job", status["job_id"]), ("status", status["status"])]
    if position := status["queue_position"]:
        rows.append(("in line", f"number {position}"))
    if status["status"] in ("completed", "failed"):
        result = result_of(status, b"", b"", [], {})
        used = result.usage
        rows += [
            ("it", result.told),
            ("used", f"{used.cpu_seconds:.2f} s of CPU, {size(used.memory_peak_bytes)} at most"),
            *(("limit", f"reached: {name}") for name in result.limits_hit),
            ("forgotten", f"at {result.expires_at}"),
        ]
        for name, about in status["output_files"].items():
            rows.append(("made", f"{name} ({size(about['size_bytes'])})"))
    rows += [("warning", warning) for warning in status["warnings"]]
    for name, text in rows:
        say(f"{name:10} {plain(str(text))}")
    return 0
