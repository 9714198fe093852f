"""Files: a database with a journal in shared memory, maps, locks, temporary and sparse files."""

import fcntl
import gzip
import mmap
import os
import selectors
import shutil
import socket
import sqlite3
import tempfile
from pathlib import Path


def database() -> list[tuple[int, int]]:
    with sqlite3.connect("x.db", isolation_level=None) as base:
        mode = base.execute("pragma journal_mode = wal").fetchone()
        base.execute("create table t (n integer primary key, square integer)")
        base.execute("begin")
        base.executemany("insert into t values (?, ?)", ((n, n * n) for n in range(1000)))
        base.execute("commit")
        again = sqlite3.connect("x.db").execute("select count(*), sum(square) from t").fetchone()
        base.execute("vacuum")
    return [mode, again]


def mapped() -> bytes:
    with open("mapped", "w+b") as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 8192) as view:
            view[4096:4101] = b"hello"
            view.flush()
            view.madvise(mmap.MADV_DONTNEED)
        os.fsync(file.fileno())
        file.seek(4096)
        anonymous = mmap.mmap(-1, 4096)
        anonymous[:5] = file.read(5)
        return anonymous[:5]


def locked() -> str:
    with open("lock", "w") as mine, open("lock") as other:
        fcntl.flock(mine, fcntl.LOCK_EX)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return "held"
    return "not held"


def copied() -> int:
    source = Path(tempfile.mkdtemp())
    with tempfile.TemporaryFile() as nameless, tempfile.NamedTemporaryFile() as named:
        nameless.write(b"x")
        named.write(b"y")
        (source / "a").mkdir()
        (source / "a" / "b").write_bytes(gzip.compress(os.urandom(100_000)))
        (source / "link").symlink_to("a")
        os.link(source / "a" / "b", source / "hard")
        os.mkfifo(source / "pipe")
        (source / "pipe").unlink()
    shutil.copytree(source, "copy", symlinks=True)
    shutil.make_archive("packed", "gztar", "copy")
    same = Path("copy/a/b").read_bytes() == Path("copy/hard").read_bytes()
    shutil.rmtree("copy")
    return same and os.path.getsize("packed.tar.gz") > 100_000


def selected() -> list[str]:
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    heard = []
    for kind in (selectors.EpollSelector, selectors.PollSelector, selectors.SelectSelector):
        with kind() as selector:
            selector.register(ours, selectors.EVENT_READ, "socket")
            selector.register(read, selectors.EVENT_READ, "pipe")
            theirs.send(b"x")
            os.write(write, b"x")
            heard.append("+".join(sorted(key.data for key, _ in selector.select(5))))
            ours.recv(9), os.read(read, 9)
    return heard


print(database(), mapped(), locked(), copied(), selected())
