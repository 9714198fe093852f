"""What the page says of a job where no JavaScript does (else words.js does): its state in a
sentence, and whatever the job made as text that can be seen for what it is.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# What a terminal would obey. A long one without an end swallows nothing of what comes after it.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)|[ -/]*[0-~]?)"
)
# What else is not seen, or changes what is seen around it: controls, and the marks that hide text,
# turn its direction around or are no letters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\uffff\U000e0000-\U000e0fff]"
)


def seen(text: str) -> str:
    """`text`, each character that would not be seen as one that says so."""
    return _UNSEEN.sub(_mark, text)


def name(text: str) -> str:
    """The same of a name, which has one line."""
    return seen(text).translate({9: "\u2409", 10: "\u240a"})


def log(text: str) -> str:
    """The same of what a job printed, without its words for a terminal."""
    return seen(_ESCAPES.sub("", text).replace("\r\n", "\n"))


def _mark(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the pictures of the controls
    return "\u2421" if code == 0x7F else "\ufffd"


def told(job: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of a job, which is as /status, /outputs and /logs have it."""
    is_over = job["status"] in ("completed", "failed")
    return {
        "id": job["job_id"],
        "is_over": is_over,
        "state": state(job),
        "logs": [
            {**one, "text": log(one["text"]), "title": title}
            for one, title in zip(job["logs"], ("Output", "Errors"), strict=True)
        ],
        "outputs": [{**one, "name": name(one["name"])} for one in job["outputs"]],
        "more": job["total_files"] - len(job["outputs"]),
        "left": _clock(_seconds_until(job["expires_at"])) if is_over else None,
        "warnings": [seen(text) for text in job["warnings"]],
    }


def state(job: Mapping[str, Any]) -> str:
    """The state of a job in a sentence."""
    how = job["execution_metadata"]
    if job["status"] == "queued":
        return f"Queued, number {job['queue_position']} in line"
    if job["status"] == "running":
        return f"Running for {_clock(how['wall_time_ms'] / 1000)}"
    took = f"after {how['wall_time_ms'] / 1000:.1f} s"
    if job["status"] == "completed":
        return f"Finished {took}, exit code 0"
    ends = {
        "exit": f"Failed with exit code {how['exit_code']} {took}",
        "signal": f"Stopped by signal {job['signal']} {took}: the program crashed",
        "timeout": f"Stopped at the time limit {took}",
        "memory": f"Stopped: it used all of its memory, {how['memory_peak_mb']} MB",
        "cpu": f"Stopped at its limit of CPU time {took}",
        "cpu_quota": f"Stopped {took}: your CPU time for this minute is used up",
        "cancelled": f"Cancelled {took}",
        "sandbox_error": "The sandbox failed. This is our fault, not your code's",
    }
    said = ends.get(job["reason"], f"Failed {took}")
    return f"{said}, while it was compiled" if job["stage"] == "compile" else said


def _seconds_until(instant: str) -> float:
    return (datetime.fromisoformat(instant) - datetime.now(UTC)).total_seconds()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, int(seconds)), 60)
    return f"{minutes}:{rest:02}"
