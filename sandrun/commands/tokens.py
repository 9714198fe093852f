"""The owner_tokens of jobs that were submitted here, so that `cancel` and `rm` may end them: in the
user's runtime folder, which is memory and goes with the session, never on a disk.
"""

import json
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_JOB = re.compile(r"[A-Za-z0-9_-]{1,100}")  # a file's name, whatever the server calls a job
_BYTES = 4096


def keep(server: str, job: str, token: str, expires_at: str) -> bool:
    """Whether it is kept. `expires_at`: when the server will have forgotten the job."""
    if not _JOB.fullmatch(job):
        return False
    kept = json.dumps({"server": server, "owner_token": token, "expires_at": expires_at})
    with _folder() as folder:
        if folder is None:
            return False
        _drop_expired(folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with open(os.open(job, flags, 0o600, dir_fd=folder), "w") as file:
                file.write(kept)
        except OSError:
            return False
    return True


def find(server: str, job: str) -> str | None:
    """That of a job on this server: no other gets to see it."""
    with _folder() as folder:
        found = _read(folder, job) if folder is not None and _JOB.fullmatch(job) else {}
    return found.get("owner_token") if found.get("server") == server else None


def drop(job: str) -> None:
    with _folder() as folder:
        if folder is not None and _JOB.fullmatch(job):
            with suppress(OSError):
                os.unlink(job, dir_fd=folder)


@contextmanager
def _folder() -> Iterator[int | None]:
    """Nobody else's, and nobody else may look into it; else None."""
    above = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    path = os.path.join(above, "sandrun")
    opened = None
    try:
        with suppress(FileExistsError):
            if _is_private(os.stat(above)):
                os.mkdir(path, 0o700)
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        if not _is_private(os.fstat(opened)):
            os.close(opened)
            opened = None
    except OSError:
        pass
    try:
        yield opened
    finally:
        if opened is not None:
            os.close(opened)


def _is_private(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077


def _read(folder: int, job: str) -> dict[str, str]:
    try:
        with open(os.open(job, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)) as file:
            found = json.loads(file.read(_BYTES))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _drop_expired(folder: int) -> None:
    # RFC 3339 in UTC: as text they are in the order of time.
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    with suppress(OSError):
        for job in os.listdir(folder):
            if str(_read(folder, job).get("expires_at", "")) < now:
                os.unlink(job, dir_fd=folder)
