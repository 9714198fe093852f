"""What a hostile client puts on the wire, byte by byte: requests, forms, archives as hostile as one
likes; and what every refusal must look like.
"""

import functools
import gzip
import hashlib
import io
import json
import os
import random
import re
import socket
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

from tests.attacks.arena import Attacker
from tests.journeys.server import REPOSITORY, Answer, memory_of, parse

MIB = 1024 * 1024
Lazy = bytes | Callable[[], bytes]
Case = TypeVar("Case")

HARDENED = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex",
}
NEVER = ("server", "x-powered-by", "set-cookie", "last-modified", "via", "x-injected")
OURS = re.compile(
    rb"Traceback|File \"|-packages|/usr/lib|memfd|<html|[A-Z][a-z]\w*Error\b|"
    rb"(?i:django|twisted|daphne|autobahn|msgspec|tarfile|zlib|cpython)|"
    + re.escape(str(REPOSITORY).encode())
)


def each(cases: Iterable[tuple[str, Case]], check: Callable[[Case], object]) -> int:
    """Check every case, whatever became of those before it; fail with all that deviate. How many
    there were: one test tries many, since the invariants are looked at after every test."""
    count, faults = 0, []
    for name, case in cases:
        count += 1
        try:
            check(case)
        except Exception as fault:  # also a time-out, or an answer that is none
            faults.append(f"{name}: {type(fault).__name__}: {fault}"[:1500])
    assert count, "nothing was tried"
    assert not faults, f"{len(faults)} of {count}:\n" + "\n".join(faults)
    return count


def made(content: Lazy) -> bytes:
    """What is large is made only when its turn comes."""
    return content if isinstance(content, bytes) else content()


def quick_enough(seconds: float, most: float) -> bool:
    """Whether it took no longer than `most` on a machine that has nothing else to do: when it has,
    computing takes longer than its CPU time, and as many times as long we wait. And on one whose
    kernel is no slower than any that runs on a processor of its own."""
    if seconds < most:
        return True
    wall, cpu = time.perf_counter(), time.thread_time()
    while time.thread_time() - cpu < 0.1:
        pass
    return seconds < most * (time.perf_counter() - wall) / 0.1 * slow_kernel()


@functools.cache
def slow_kernel() -> float:
    """How many times as long as a microsecond, which is much, a call of the kernel takes at best:
    1 on every machine but a guest that is made of processes."""
    times = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(1000):
            os.getppid()
        times.append(time.perf_counter() - began)
    return max(1.0, min(times) / 0.001)


# --- requests and answers ----------------------------------------------------------------------


def request(method: str, target: str | bytes, body: bytes | None = None, *headers: str) -> bytes:
    """The bytes of a request; its `headers` come before ours, unless they replace them."""
    given = {header.partition(":")[0].lower() for header in headers}
    lines = list(headers)
    for line in ("Host: localhost", "Connection: close"):
        if line.partition(":")[0].lower() not in given:
            lines.append(line)
    if body is not None and not given & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    path = target if isinstance(target, bytes) else target.encode()
    head = f"{method} ".encode() + path + b" HTTP/1.1\r\n"
    return (
        head + "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n" + (body or b"")
    )


@functools.cache
def problems() -> dict[str, str]:
    """By reason: the first paragraph of its page, which names the statuses."""
    sections = (REPOSITORY / "jobs/api/problems.md").read_text().split("\n## ")[1:]
    return {section.split()[0]: section.split("\n\n")[1] for section in sections}


def hardened(answer: Answer, heeded: Mapping[str, str] = HARDENED) -> None:
    """Whatever the answer is: the headers that browsers heed, and none that tells about us."""
    for name, value in heeded.items():
        assert answer.headers.get(name) == value, (name, answer)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy, policy
    for name in answer.headers:
        assert name not in NEVER and not name.startswith("access-control-"), (name, answer)
    if tag := answer.headers.get("etag"):  # says what the bytes are, and not who has them
        assert re.fullmatch(r'"[0-9a-f]{64}"', tag), tag
        if answer.status == 200 and answer.body:
            assert tag == f'"{hashlib.sha256(answer.body).hexdigest()}"', answer


def refused(raw: bytes, *statuses: int, reason: str = "", word: str = "") -> dict[str, Any]:
    """The body of a refusal, which is as all of them are. Without `statuses`: a 400."""
    assert raw.count(b"HTTP/1.1 ") == 1, raw[:2000]
    answer = parse(raw)
    assert answer.status in (statuses or (400,)), (answer.status, answer.body[:1000])
    assert 400 <= answer.status < 500, answer.status
    assert answer.headers["content-type"] == "application/problem+json", answer
    assert int(answer.headers["content-length"]) == len(answer.body) < 3000, answer.headers
    hardened(answer)
    assert not OURS.search(answer.body), answer.body
    body: dict[str, Any] = answer.json
    assert body["status"] == answer.status, body
    assert body["title"] == HTTPStatus(answer.status).phrase, body
    assert body["type"] == f"/problems/{body['reason']}", body
    assert f" {body['status']}" in problems()[body["reason"]], body
    assert ("errors" in body) <= (body["reason"] == "invalid_manifest"), body
    for fault in body.get("errors", ()):
        assert fault.keys() == {"pointer", "detail"} and fault["detail"].isprintable(), body
        assert re.fullmatch(r"(/([^~/]|~[01])*)*", fault["pointer"]), body
    assert body["error"].isprintable() and len(body["error"]) >= len("Not found"), body
    assert body["detail"].startswith(body["error"].rstrip(".")), body
    assert body["reason"] == (reason or body["reason"]), body
    assert word in body["error"], body
    return body


# --- submissions -------------------------------------------------------------------------------

BASIC: dict[str, object] = {"entrypoint": "main.py", "interpreter": "python3"}


def multipart(*parts: tuple[str, bytes]) -> bytes:
    """The body of a form of parts, each as (Content-Disposition and more, content)."""
    lines = [
        b"--xYx\r\nContent-Disposition: form-data; "
        + head.encode("utf-8", "surrogateescape")
        + b"\r\n\r\n"
        + content
        for head, content in parts
    ]
    return b"\r\n".join([*lines, b"--xYx--\r\n"])


def file(name: str, content: bytes) -> tuple[str, bytes]:
    return f'name="files"; filename="{name}"', content


def asked(manifest: bytes | dict[str, object]) -> tuple[str, bytes]:
    raw = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return 'name="manifest"', raw


def submission(*parts: tuple[str, bytes], headers: Sequence[str] = (), query: str = "") -> bytes:
    """POST /submit of a form."""
    kind = "Content-Type: multipart/form-data; boundary=xYx"
    return request("POST", "/submit" + query, multipart(*parts), kind, *headers)


def json_submission(body: bytes | dict[str, object]) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request("POST", "/submit?wait=60", raw, "Content-Type: application/json")


def python(code: str, **manifest: object) -> bytes:
    return submission(file("main.py", code.encode()), asked({**BASIC, **manifest}))


def sent(attacker: Attacker, raw: bytes) -> Answer:
    """The answer to a submission, once its job is over; of a job the token is kept."""
    waits = raw.replace(b"POST /submit HTTP", b"POST /submit?wait=60 HTTP")
    return attacker.accepted(attacker.answer(waits))


@contextmanager
def ran(attacker: Attacker, raw: bytes) -> Iterator[dict[str, Any]]:
    """The /status, logs and outputs of an accepted job, over; deleted at the end of the block."""
    answer = sent(attacker, raw)
    assert answer.status == 200, answer
    hardened(answer)
    job: dict[str, Any] = answer.json
    try:
        assert job["status"] in ("completed", "failed"), job
        assert job["reason"] != "sandbox_error", job
        yield job
    finally:
        attacker.delete(job["job_id"])


def refused_or_ran(attacker: Attacker, raw: bytes) -> int:
    """Either a refusal, or a job that ends; the status."""
    answer = sent(attacker, raw)
    if answer.status != 200:
        refused(attacker.exchange(raw))
        return answer.status
    attacker.delete(answer.json["job_id"])
    assert answer.json["reason"] in (None, "exit", "signal"), answer.json
    return 200


# --- archives ----------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A member of an archive, as hostile as one likes."""

    name: str
    content: bytes = b""
    kind: str = "file"
    link: str = ""
    mode: int = 0o644
    pax: dict[str, str] = {}
    uid: int = 0
    gid: int = 0


MAIN = Entry("main.py", b"print('ran')")
TAR_KINDS = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "contiguous": tarfile.CONTTYPE,
    "dump": b"D",
    "volume": b"V",
    "multi": b"M",
    "unknown": b"Z",
    "sparse": tarfile.GNUTYPE_SPARSE,
}
ZIP_KINDS = {
    "file": stat.S_IFREG,
    "folder": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "socket": stat.S_IFSOCK,
}


def tar_of(entries: Iterable[Entry]) -> bytes:
    out = bytearray()
    for entry in entries:
        info = tarfile.TarInfo(entry.name)
        info.type, info.linkname, info.mode = TAR_KINDS[entry.kind], entry.link, entry.mode
        info.uname, info.uid, info.gid = "root", entry.uid, entry.gid
        info.pax_headers = entry.pax
        info.size = len(entry.content)
        out += info.tobuf(
            tarfile.PAX_FORMAT if entry.pax else tarfile.GNU_FORMAT, "utf-8", "surrogateescape"
        )
        out += entry.content
        out += bytes(-len(entry.content) % 512)
    return bytes(out) + bytes(1024)


def zip_of(entries: Iterable[Entry]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in entries:
            info = zipfile.ZipInfo()
            info.filename = entry.name  # as it is: the constructor would mend it
            info.create_system, info.compress_type = 3, zipfile.ZIP_DEFLATED
            info.external_attr = (ZIP_KINDS[entry.kind] | entry.mode) << 16
            packed.NameToInfo.clear()  # it would warn of two of the same name
            packed.writestr(info, entry.link.encode() or entry.content)
    return buffer.getvalue()


PACKERS: dict[str, Callable[[Iterable[Entry]], bytes]] = {
    "tar.gz": lambda entries: gzip.compress(tar_of(entries), 1),
    "zip": zip_of,
}


def archive(form: str, *entries: Entry, manifest: dict[str, object] | None = None) -> bytes:
    return packed(form, PACKERS[form](entries), manifest)


def packed(form: str, content: bytes, manifest: dict[str, object] | None = None) -> bytes:
    """The submission of an archive that is ready."""
    return submission(file(f"job.{form}", content), asked(manifest or BASIC))


def spoilt(raw: bytes, at: int, new: bytes) -> bytes:
    at %= len(raw)
    return raw[:at] + new + raw[at + len(new) :]


def zeros(mib: int) -> bytes:
    """gzip of so many MiB of nothing, made quickly."""
    return gzip.compress(bytes(MIB)) * mib


def tar_head(kind: bytes, size: int, name: str = "zeros") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def swollen(kind: bytes, mib: int) -> bytes:
    """A header that says that so much belongs to it, and has it."""
    return gzip.compress(tar_head(kind, mib * MIB)) + zeros(mib)


GOOD_TAR = tar_of([MAIN, Entry("data", random.Random(1).randbytes(20_000))])
GOOD_GZ = gzip.compress(GOOD_TAR)
GOOD_ZIP = zip_of([MAIN, Entry("data", random.Random(1).randbytes(20_000))])


# --- outputs -----------------------------------------------------------------------------------


def download(attacker: Attacker, job: str, path: str) -> bytes:
    """All that comes back for it, whatever the path is."""
    return attacker.exchange(request("GET", f"/download/{job}/{path}"))


def unpacked(attacker: Attacker, job: str, form: str) -> dict[str, bytes]:
    """All outputs as one archive, whose members are files and nothing else, and stay where they are
    unpacked."""
    answer = attacker.answer(request("GET", f"/download/{job}?format={form}"))
    assert answer.status == 200, answer
    hardened(answer)
    buffer = io.BytesIO(answer.body)
    if form == "zip":
        with zipfile.ZipFile(buffer) as opened:
            files = {info.filename: opened.read(info) for info in opened.infolist()}
            modes = [info.external_attr >> 16 for info in opened.infolist()]
        assert all(map(stat.S_ISREG, modes)), modes
    else:
        with tarfile.open(fileobj=buffer) as tar:
            members = tar.getmembers()
            assert all(info.isreg() for info in members), members
            files = {info.name: tar.extractfile(info).read() for info in members}  # type: ignore[union-attr]
            modes = [info.mode for info in members]
            assert len(files) == len(members), members
    assert {stat.S_IMODE(mode) for mode in modes} <= {0o644, 0o755}, modes
    for name in files:
        assert not name.startswith("/") and ".." not in name.split("/"), name
    return files


# --- a crowd -----------------------------------------------------------------------------------


def full_logs(attacker: Attacker) -> str:
    """A job with 10 MB of NUL in one log, and of 0x01 in the other."""
    zeros = "head -c 10485760 /dev/zero"
    return attacker.sh(f"{zeros}; {zeros} | tr '\\0' '\\1' >&2").id


def crowd_around(attacker: Attacker, job: str) -> tuple[int, dict[bytes, int]]:
    """Fifty ask for the logs and read only their beginning, one reads them to the end: how much the
    server grew meanwhile, and how often some words came."""
    web = attacker.server.pids()["web"]
    before = memory_of(web).rss
    targets = (f"/logs/{job}", f"/status/{job}?wait=60", f"/logs/{job}?stream=stdout")
    with ExitStack() as stack:
        clients = [stack.enter_context(attacker.connect()) for _ in range(50)]
        for number, client in enumerate(clients):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.sendall(request("GET", targets[number % 3]))
        for client in clients:
            head = client.recv(1000)
            assert head.startswith(b"HTTP/1.1 200 "), head[:200]
        grown = memory_of(web).rss - before
        whole = attacker.ask("GET", targets[0]).body
        grown = max(grown, memory_of(web).rss - before)
    assert json.loads(whole)["truncated"] is False
    words = (b"\\u0000", b"\\u0001")
    return grown, {word: whole.count(word) for word in words}
