"""What the owner of a job sends to its stdin while it waits or runs, by HTTP or by WebSocket."""

from jobs.errors import StdinClosed, StdinElsewhere, StdinFull
from jobs.job import Job
from sandbox.feed import ROOM


def send(job: Job, data: bytes, end: bool, at: int | None) -> dict[str, object]:
    """Put `data` behind what has come, all of it or nothing; with `end` nothing may follow. `at`:
    how many bytes have come before, so that none is taken twice or out of its turn. Tells how many
    have come now, and how many of them wait for room in the program's pipe. Raises Rejected.
    """
    feed = job.feed
    if feed is None:
        raise StdinClosed(
            'The job takes no stdin while it runs: its manifest does not say "stdin_live": true'
        )
    if job.is_over:
        raise StdinClosed("The job is over and reads nothing more")
    if at is not None and at != feed.taken:
        raise StdinElsewhere(f"{feed.taken} bytes have come to stdin, and not {at}")
    if (data or end) and not feed.is_open:
        raise StdinClosed("The job's stdin is closed")
    if len(data) > feed.room:
        raise StdinFull(
            f"{feed.waiting} bytes wait for the job to read them, of at most {ROOM}; "
            f"these {len(data)} were not taken",
            retry_after=1,
        )
    if data:
        feed.put(data)
        if not feed.is_open:
            raise StdinClosed("The program has closed its stdin")
    if end:
        feed.end()
    return {"taken": feed.taken, "waiting": feed.waiting}
