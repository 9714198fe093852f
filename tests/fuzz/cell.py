"""Cell: a process in which hostile archives are unpacked for real, and nothing else can be hit.

It has a mount namespace of its own and sees one empty tmpfs as the whole file system, so what the
product's `unpack` writes is written there, and whatever it would write beside /job is found. One
process serves many inputs; each gets a fresh /job. It also bounds what a reader may hold in memory.
"""

import atexit
import functools
import hashlib
import json
import os
import resource
import signal
import socket
import time
import traceback
from pathlib import Path
from typing import Any

from sandbox import channel, linux, privileges, unpack
from sandbox.errors import BundleRefused
from sandbox.template import WORK

DISK_BYTES = 8 << 20  # what `inspect` is told that a job may store
_MEMORY_BYTES = 64 << 20  # beside what the process has at its start: as a real inspection
_TMPFS = "size=96m,nr_inodes=50000"  # more than any archive that inspect accepts
_ROOT = "/tmp"  # covered by the cell's own root; in our namespace nothing changes
_CLONE_NEWNS = 0x20000


class Cell:
    """Our end of it."""

    def __init__(self) -> None:
        self._end, theirs = channel.pair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._end.close()
                _live(theirs)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        theirs.close()

    def try_archive(self, archive: int) -> dict[str, Any]:
        """{"inspected": listing or sentence, "unpacked": true, sentence or null, "found": rows,
        "beside": names, "seconds": of CPU, "fault": traceback or null}."""
        os.lseek(archive, 0, os.SEEK_SET)
        channel.send(self._end, {}, (archive,))
        try:
            _, (reply,) = channel.receive(self._end, 1)
        except channel.ProtocolError as error:
            raise AssertionError("the archive killed the process that unpacked it") from error
        with open(reply, "rb") as file:
            answer: dict[str, Any] = json.load(file)
        return answer

    def close(self) -> None:
        self._end.close()
        os.waitpid(self.pid, 0)


@functools.cache
def cell() -> Cell:
    """The one of this process, ended with it."""
    made = Cell()
    owner = os.getpid()

    def close() -> None:
        if os.getpid() == owner:  # and not in what was forked from it
            made.close()

    atexit.register(close)
    return made


def _live(end: socket.socket) -> None:
    privileges.die_with_parent()
    # Whoever forked us may have timers and handlers of a fuzzer, and files that are not ours.
    for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.closerange(3, end.fileno())
    os.closerange(end.fileno() + 1, 1 << 16)
    linux.unshare(_CLONE_NEWNS)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", _ROOT, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=16m")
    os.mkdir(_ROOT + WORK)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    os.chroot(_ROOT)
    os.chdir("/")
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY_BYTES,) * 2)
    while True:
        try:
            _, (archive,) = channel.receive(end, 1)
        except channel.ProtocolError:
            os._exit(0)
        reply = os.memfd_create("reply")
        _write(reply, json.dumps(_try(archive)).encode())
        os.lseek(reply, 0, os.SEEK_SET)
        channel.send(end, {}, (reply,))
        os.close(reply)
        os.close(archive)


def _try(archive: int) -> dict[str, Any]:
    answer: dict[str, Any] = dict.fromkeys(("inspected", "unpacked", "fault"))
    answer |= {"found": [], "beside": []}
    linux.mount("tmpfs", WORK, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, _TMPFS)
    began = time.process_time()
    try:
        try:
            answer["inspected"] = unpack.inspect(archive, DISK_BYTES)
        except BundleRefused as refusal:
            answer["inspected"] = str(refusal)
        answer["seconds"] = time.process_time() - began
        if not answer["inspected"] or "unpacks to more" not in answer["inspected"]:
            answer["unpacked"] = _unpack(archive)
            answer["found"] = _listing()
        answer["beside"] = sorted(set(os.listdir("/")) - {WORK.lstrip("/")})
    except BaseException:
        answer["fault"] = traceback.format_exc()
    finally:
        linux.umount(WORK)
    return answer


def _unpack(archive: int) -> bool | str:
    try:
        unpack.unpack("archive", archive, [])
    except BundleRefused as refusal:
        return str(refusal)
    return True


def _listing() -> list[list[Any]]:
    """Every file as `inspect` would say it; links and all that is odd by their own words."""
    found: list[list[Any]] = []
    for folder, folders, names in os.walk(WORK):
        for name in names + [name for name in folders if os.path.islink(f"{folder}/{name}")]:
            path = f"{folder}/{name}"
            status = os.lstat(path)
            place = os.path.relpath(path, WORK)
            if os.path.islink(path) or not os.path.isfile(path):
                found.append([place, "neither a file nor a folder"])
                continue
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            mode = status.st_mode & 0o7777
            found.append([place, status.st_size, status.st_mtime_ns, mode, digest])
    return sorted(found)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


__all__ = ["DISK_BYTES", "Cell", "cell"]
