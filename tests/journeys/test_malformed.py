"""Malformed requests of every kind against the real server: a clear 4xx, never 500, nothing left.

The ids are those of the list of attacks: MF manifests, AR archives and file names, OC outputs and
downloads, WB what a browser or a bad client sends, RL what it costs.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import random
import re
import socket
import stat
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from tests.journeys.server import (
    REPOSITORY,
    Answer,
    Server,
    cgroups_of,
    eventually,
    memory_of,
    parse,
)

MIB = 1024 * 1024

# --- the server, and what it holds -------------------------------------------------------------

DEBUG = {"DEBUG": "1", "DJANGO_DEBUG": "True", "SANDRUN_DEBUG": "1"}  # WB-14: nobody asks for these


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Told to be in debug mode; has had its first jobs. Nothing may be printed meanwhile: no fault
    of ours, and nothing of what clients send.
    """
    server = Server("--no-quotas", env=DEBUG)
    said = server.banner
    try:
        for upload in (archive("tar.gz", MAIN), submission(file("main.py", b""))):
            with ran(server, upload):
                pass
        yield server
    finally:
        assert server.end() == 0, server.banner
    assert server.banner == said


class Held(NamedTuple):
    """What a server has open or running, beside its jobs."""

    memfds: int
    web: int  # descriptors
    launcher: int
    processes: int
    cgroups: int


def held(pids: dict[str, int]) -> Held:
    web, launcher = memory_of(pids["web"]), memory_of(pids["launcher"])
    return Held(
        web.memfd_count,
        web.descriptors,
        launcher.descriptors,
        len(list(below(pids["keeper"]))),
        len(cgroups_of(pids["keeper"])),
    )


def below(pid: int) -> Iterator[int]:
    """Every process that this one has started, and those that they have."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                yield child
                yield from below(child)


class Calm:
    """The state to which the server comes back."""

    def __init__(self, server: Server) -> None:
        self.pids = server.pids()
        self.now = self.state = held(self.pids)
        assert eventually(self._is_steady, 10)

    def _is_steady(self) -> bool:
        before, self.state = self.state, held(self.pids)
        time.sleep(0.1)
        return before == self.state == held(self.pids)

    def is_back(self) -> bool:
        """Nothing more of anything than there was."""
        self.now = held(self.pids)
        return all(now <= before for now, before in zip(self.now, self.state, strict=True))

    def comes_back(self) -> bool:
        """Whether it is as before, soon. What was left counts once, not against what follows."""
        back = eventually(self.is_back, 3)
        self.state = self.now if not back else self.state
        return back


@pytest.fixture(scope="module")
def calm(server: Server) -> Calm:
    return Calm(server)


@pytest.fixture(autouse=True)
def nothing_left(server: Server, calm: Calm) -> Iterator[None]:
    """After every case: no job in line or running, no descriptor, memory, process or cgroup more,
    and the server answers.
    """
    yield
    assert server.get("/health")["status"] == "healthy"
    system = server.get("/stats")["system"]
    assert (system["queue_length"], system["active_jobs"]) == (0, 0)
    before = calm.state
    assert calm.comes_back(), f"{calm.now} and before {before}"


# --- requests and answers ----------------------------------------------------------------------

Lazy = bytes | Callable[[], bytes]

HARDENED = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex",
}
NEVER = ("server", "x-powered-by", "set-cookie", "etag", "last-modified", "via", "x-injected")
OURS = re.compile(
    rb"Traceback|File \"|-packages|/usr/lib|memfd|<html|[A-Z][a-z]\w*Error\b|"
    rb"(?i:django|twisted|daphne|autobahn|msgspec|tarfile|zlib|cpython)|"
    + re.escape(str(REPOSITORY).encode())
)


def exchange(server: Server, *raw: bytes) -> bytes:
    """All that comes back for these bytes until the server hangs up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have heard enough
            for piece in raw:
                client.sendall(piece)
        received = bytearray()
        while piece := client.recv(65536):
            received += piece
        return bytes(received)


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


def hardened(answer: Answer) -> None:
    """Whatever the answer is: the headers that browsers heed, and none that tells about us."""
    for name, value in HARDENED.items():
        assert answer.headers.get(name) == value, (name, answer)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy, policy
    for name in answer.headers:
        assert name not in NEVER and not name.startswith("access-control-"), (name, answer)


def refused(raw: bytes, *statuses: int, reason: str = "", word: str = "") -> dict[str, Any]:
    """The body of a refusal, which is as all of them are. Without `statuses`: a 400."""
    answer = parse(raw)
    assert raw.count(b"HTTP/1.1 ") == 1, raw[:2000]
    assert answer.status in (statuses or (400,)), (answer.status, answer.body[:1000])
    assert 400 <= answer.status < 500
    assert answer.headers["content-type"] == "application/problem+json", answer
    assert int(answer.headers["content-length"]) == len(answer.body) < 3000
    hardened(answer)
    assert not OURS.search(answer.body), answer.body
    body: dict[str, Any] = answer.json
    assert body["status"] == answer.status
    assert body["title"] == HTTPStatus(answer.status).phrase
    assert body["type"] == "about:blank"
    assert re.fullmatch(r"[a-z_]+", body["reason"])
    assert body["error"].isprintable() and len(body["error"]) >= len("Not found"), body
    assert body["detail"].startswith(body["error"].rstrip("."))
    assert body["reason"] == (reason or body["reason"]), body
    assert word in body["error"], body
    return body


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


@contextmanager
def ran(server: Server, raw: bytes) -> Iterator[dict[str, Any]]:
    """The /status, logs and outputs of an accepted job, over; deleted at the end of the block."""
    answer = parse(
        exchange(server, raw.replace(b"POST /submit HTTP", b"POST /submit?wait=60 HTTP"))
    )
    assert answer.status == 200, answer
    hardened(answer)
    job: dict[str, Any] = answer.json
    try:
        assert job["status"] in ("completed", "failed"), job
        assert job["reason"] != "sandbox_error", job
        yield job
    finally:
        delete(server, job)


def delete(server: Server, job: dict[str, Any]) -> None:
    bearer = f"Authorization: Bearer {job['owner_token']}"
    gone = parse(exchange(server, request("DELETE", f"/jobs/{job['job_id']}", None, bearer)))
    assert gone.status == 200, gone


def refused_or_ran(server: Server, raw: bytes) -> None:
    """Either a refusal, or a job that ends."""
    answer = parse(
        exchange(server, raw.replace(b"POST /submit HTTP", b"POST /submit?wait=60 HTTP"))
    )
    if answer.status != 200:
        refused(exchange(server, raw))
        return
    delete(server, answer.json)
    assert answer.json["reason"] in (None, "exit", "signal"), answer.json


def made(content: Lazy) -> bytes:
    """What is large is made only when its turn comes."""
    return content if isinstance(content, bytes) else content()


# --- archives ----------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A member of an archive, as hostile as one likes."""

    name: str
    content: bytes = b""
    kind: str = "file"
    link: str = ""
    mode: int = 0o644
    pax: dict[str, str] = {}


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
        info.uname = "root"
        info.pax_headers = entry.pax
        info.size = len(entry.content)
        form = tarfile.PAX_FORMAT if entry.pax else tarfile.GNU_FORMAT
        out += info.tobuf(form, "utf-8", "surrogateescape") + entry.content
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
MAIN = Entry("main.py", b"print('ran')")
BASIC = {"entrypoint": "main.py", "interpreter": "python3"}


def archive(form: str, *entries: Entry, manifest: dict[str, object] | None = None) -> bytes:
    return packed(form, PACKERS[form](entries), manifest)


def packed(form: str, content: bytes, manifest: dict[str, object] | None = None) -> bytes:
    """The submission of an archive that is ready."""
    return submission(file(f"job.{form}", content), asked(manifest or BASIC))


# --- MF: manifests -----------------------------------------------------------------------------


def keys(count: int) -> bytes:
    return b"{" + b",".join(b'"%d":0' % n for n in range(count)) + b"}"


BROKEN: list[tuple[str, Lazy]] = [
    ("MF-01-lists", b"[" * 60_000),
    ("MF-01-lists-closed", b"[" * 30_000 + b"]" * 30_000),
    ("MF-01-objects", b'{"a":' * 12_000),
    ("MF-01-lists-too-long", b"[" * 100_000),
    ("MF-01-objects-too-long", b'{"a":' * 200_000),
    ("MF-01-million-keys", lambda: keys(1_000_000)),
    ("MF-01-6000-keys", keys(6000)),
    ("MF-01-deep-value", b'{"env": ' + b'{"a":' * 500 + b"1" + b"}" * 501),
    ("MF-01-5000-digits", b'{"timeout": ' + b"9" * 5000 + b"}"),
    ("MF-01-5000-digits-of-nothing", b'{"x": ' + b"9" * 5000 + b"}"),
    ("MF-01-4000-digits", b'{"timeout": ' + b"9" * 4000 + b"}"),
    ("MF-01-long-fraction", b'{"cpu_seconds": 0.' + b"0" * 50_000 + b"1}"),
    ("MF-04-key-twice", b'{"timeout": 1, "timeout": 300}'),
    ("MF-04-key-twice-inside", b'{"env": {"A": "1", "A": "2"}}'),
    ("MF-04-key-twice-escaped", b'{"timeout": 1, "\\u0074imeout": 300}'),
    ("MF-04-bom", b'\xef\xbb\xbf{"timeout": 1}'),
    ("MF-04-utf-16", '{"timeout": 1}'.encode("utf-16")),
    ("MF-04-utf-16-le", '{"timeout": 1}'.encode("utf-16-le")),
    ("MF-04-utf-32", '{"timeout": 1}'.encode("utf-32")),
    ("MF-04-latin-1", '{"args": ["é"]}'.encode("latin-1")),
    ("MF-04-overlong", b'{"args": ["\xc0\xaf"]}'),
    ("MF-04-surrogate-bytes", b'{"args": ["\xed\xa0\x80"]}'),
    ("MF-04-garbage-behind", b'{"timeout": 1} x'),
    ("MF-04-two-objects", b"{}{}"),
    ("MF-04-nul-behind", b"{}\0"),
    ("MF-04-list", b"[]"),
    ("MF-04-list-of-objects", b'[{"timeout": 1}]'),
    ("MF-04-true", b"true"),
    ("MF-04-null", b"null"),
    ("MF-04-number", b"1"),
    ("MF-04-string", b'"main.py"'),
    ("MF-04-nothing", b""),
    ("MF-04-blank", b" \r\n"),
    ("MF-04-proto", b'{"__proto__": {"timeout": 1}}'),
    ("MF-04-unknown-key", b'{"timout": 1}'),
    ("MF-04-key-in-capitals", b'{"Timeout": 1}'),
    ("MF-04-empty-key", b'{"": 1}'),
    ("MF-04-odd-key", '{"\u202e<img src=x>\\u0000\\n": 1}'.encode()),
    ("MF-04-long-key", b'{"' + b"k" * 60_000 + b'": 1}'),
    ("MF-04-single-quotes", b"{'timeout': 1}"),
    ("MF-04-comment", b'{"timeout": 1} // x'),
    ("MF-04-comma", b'{"timeout": 1,}'),
    ("MF-04-control-character", b'{"stdin": "a\nb"}'),
    ("MF-12-utf-7", b"+AHsAIg-timeout+ACI-: 1+AH0-"),
]  # fmt: skip


def number_cases() -> Iterator[tuple[str, bytes]]:
    """MF-02: what is no number of seconds or megabytes, or none that is allowed."""
    for key in ("timeout", "memory_mb", "ttl", "cpu_seconds"):
        for text in (
            "0", "-1", "-0", "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "true", "false",
            '"300"', '""', "null", "1" + "0" * 30, "1e30", "[]", "[1]", "{}", "01", "0x10", "1_0",
            "+1",
        ):  # fmt: skip
            yield f"MF-02-{key}-{text[:9]}", f'{{"{key}": {text}}}'.encode()
        if key != "cpu_seconds":
            yield f"MF-02-{key}-3.7", f'{{"{key}": 3.7}}'.encode()
    yield "MF-13-timeout-301", b'{"timeout": 301}'  # refused, not clamped
    yield "MF-13-memory-513", b'{"memory_mb": 513}'
    yield "MF-13-memory-15", b'{"memory_mb": 15}'
    yield "MF-13-ttl-301", b'{"ttl": 301}'
    yield "MF-13-cpu-301", b'{"cpu_seconds": 301}'


ODD_VALUES: list[object] = [None, True, 1, 1.5, [], {}, ["python3"], {"a": "b"}]


def word_cases() -> Iterator[tuple[str, dict[str, object]]]:
    """What is no language, no arguments, no environment."""
    for what in (
        "/bin/sh", "../../bin/sh", "./python3", "/usr/bin/python3", "python3 -c x", "python3;id",
        "python3\n", " python3", "python3 ", "python3\0", "Python3", "PYTHON3", "p" * 10_000,
        "python3/", "pytho", "python*", "$(id)", "`id`", "ｐython3", "sh -c id", "-c", "*",
    ):  # fmt: skip
        yield f"MF-05-{ascii(what)[:16]}", {"interpreter": what}
        yield f"MF-10-{ascii(what)[:16]}", {"environment": what}
    yield "MF-05-empty", {"interpreter": ""}
    for value in ODD_VALUES:
        yield f"MF-05-{value}", {"interpreter": value}
        if value is not None:
            yield f"MF-10-{value}", {"environment": value}
        yield f"MF-05-entrypoint-{value}", {"entrypoint": value}
        yield f"MF-07-stdin-{value}", {"stdin": value}
    yield "MF-05-two-languages", {"interpreter": "python3", "environment": "bash"}
    for what in ("../../x", "a;id", "$(id)", "e" * 10_000, "unknown", "ml-basic"):
        yield f"MF-10-{what[:10]}", {"environment": what}
    for value in (["numpy"], "numpy", "requirements.txt", {"numpy": "1"}, [["a"]], 1, True):
        yield f"MF-10-requirements-{value}", {"requirements": value}
    for value in (True, 1, "a100", {"required": True}, {"required": None}, {"count": 1}, [1]):
        yield f"MF-10-gpu-{value}", {"gpu": value}
    for value in (None, True, 1, "a b", {"0": "a"}, [1], [None], [["a"]], [{}], ["a", 1.5]):
        yield f"MF-07-args-{value}", {"args": value}
        yield f"MF-07-outputs-{value}", {"outputs": value}
    yield "MF-07-10000-args", {"args": ["a"] * 10_000}
    yield "MF-07-1001-args", {"args": [""] * 1001}
    yield "MF-07-1-MB-arg", {"args": ["a" * MIB]}
    yield "MF-07-nul", {"args": ["a\0b"]}
    yield "MF-07-half-a-character", {"args": ["\ud800"]}
    yield "MF-07-stdin-half-a-character", {"stdin": "\udfff"}
    for name in (
        "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PATH", "GLIBC_TUNABLES", "MALLOC_PERTURB_",
        "A=B", "=", "", "A\0B", "A B", "1A", "é", "A\n", "\ud800", "BASH_FUNC_ls%%",
    ):  # fmt: skip
        yield f"MF-08-{ascii(name)}", {"env": {name: "x"}}
    for value in (None, True, 1, "A=B", ["A=B"], {"A": 1}, {"A": None}, {"A": ["x"]}, {"A": {}}):
        yield f"MF-08-{value}", {"env": value}
    yield "MF-08-nul-in-value", {"env": {"A": "x\0LD_PRELOAD=y"}}
    yield "MF-08-half-a-character", {"env": {"A": "\udc80"}}
    yield "MF-08-1001-names", {"env": {f"A{n}": "" for n in range(1001)}}
    for pattern in (
        "..", "/", "/proc/self/environ", "/proc/1/*", "../*", "a/../../b", "", "a" * 2000, "a\0b",
        "/etc/**", "results/../..", "\ud800",
    ):  # fmt: skip
        yield f"OC-14-{ascii(pattern)[:20]}", {"outputs": [pattern]}
    yield "OC-14-101-patterns", {"outputs": ["*"] * 101}
    for path in (
        "../../../../etc/shadow", "/etc/shadow", "/dev/zero", "/dev/stdin", "/proc/self/environ",
        ".", "./", "main.py/", "main.py/.", "other.py", "MAIN.PY", "main.py\0", "a" * 5000,
        "./../main.py", "folder/../main.py", "\ud800", "<img src=x onerror=alert(1)>",
    ):  # fmt: skip
        yield f"AR-20-entrypoint-{ascii(path)[:24]}", {"entrypoint": path}


MANIFESTS: list[tuple[str, Lazy]] = [
    *BROKEN,
    *number_cases(),
    *((name, json.dumps(manifest).encode()) for name, manifest in word_cases()),
]


@pytest.mark.parametrize("manifest", [pytest.param(raw, id=name) for name, raw in MANIFESTS])
def test_a_manifest_that_makes_no_sense_is_refused(server: Server, manifest: Lazy) -> None:
    began = time.monotonic()
    raw = exchange(server, submission(file("main.py", b""), asked(made(manifest))))
    assert time.monotonic() - began < 2
    refused(raw, reason="invalid_manifest")


SOME = [case for case in MANIFESTS if case[0].startswith(("MF-01", "MF-04", "MF-12", "MF-02-ti"))]


@pytest.mark.parametrize("manifest", [pytest.param(raw, id=name) for name, raw in SOME])
def test_the_same_as_job_json_beside_the_files(server: Server, manifest: Lazy) -> None:
    raw = exchange(server, submission(file("main.py", b""), file("job.json", made(manifest))))
    refused(raw, reason="invalid_manifest")


@pytest.mark.parametrize("form", PACKERS)
@pytest.mark.parametrize("manifest", [pytest.param(raw, id=name) for name, raw in SOME[:24]])
def test_the_same_as_job_json_in_an_archive(server: Server, form: str, manifest: Lazy) -> None:
    """AR-20: the server reads job.json, as text and not as a file."""
    content = PACKERS[form]([MAIN, Entry("job.json", made(manifest))])
    refused(exchange(server, submission(file(f"x.{form}", content))))


@pytest.mark.parametrize(
    "manifest",
    [pytest.param(raw, id=name) for name, raw in SOME
     if "twice" not in name and name not in ("MF-04-null", "MF-04-nothing", "MF-04-blank")],
)  # fmt: skip
def test_the_same_inside_a_body_of_json(server: Server, manifest: Lazy) -> None:
    body = b'{"files": {"main.py": ""}, "manifest": ' + made(manifest) + b"}"
    refused(exchange(server, json_submission(body)), 413 if len(body) > 4 * MIB else 400)


def test_mf_08_what_is_allowed_arrives_byte_for_byte(server: Server) -> None:
    """MF-07 and MF-08: through no shell, and into the program only."""
    args = [
        "",
        "a|b",
        "a\nb\r",
        "$(id)",
        "`id`",
        "'; id; \"",
        "-c",
        "--",
        "ü\u2028\u202e",
        "*",
        " ",
    ]
    env = {"IFS": "x", "PYTHONPATH": "/nowhere", "BASH_ENV": "/etc/passwd", "_": "\x7f\n", "A": ""}
    code = b"import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    manifest: dict[str, object] = {**BASIC, "args": args, "env": env}
    with ran(server, submission(file("main.py", code), asked(manifest))) as job:
        got_args, got_env = json.loads(job["logs"]["stdout"])
    assert got_args == args
    assert {name: got_env[name] for name in env} == env
    assert not set(got_env) & {"DEBUG", "DJANGO_DEBUG", "SANDRUN_DEBUG"}


def test_mf_10_a_gpu_that_is_not_required_is_left_out_and_said(server: Server) -> None:
    manifest: dict[str, object] = {"gpu": {"required": False}, "requirements": []}
    with ran(server, submission(file("main.py", b""), asked(manifest))) as job:
        assert len(job["warnings"]) == 1 and "gpu" in job["warnings"][0]


def test_mf_12_a_manifest_of_100_mb(server: Server) -> None:
    part = multipart(file("main.py", b""), asked(b" " * (99 * MIB)))
    kind = "Content-Type: multipart/form-data; boundary=xYx"
    raw = exchange(server, request("POST", "/submit", part, kind))
    refused(raw, reason="invalid_manifest", word="larger than")
    raw = exchange(server, request("POST", "/submit", part + bytes(2 * MIB), kind))
    refused(raw, 413, reason="too_large")


@pytest.mark.parametrize(
    "head",
    [
        'name="manifest"\r\nContent-Transfer-Encoding: base64',
        'name="manifest"\r\nContent-Transfer-Encoding: quoted-printable',
        'name="manifest"\r\ncontent-transfer-encoding:x-uuencode',
        'name="manifest"\r\n\tfolded',
        'name="manifest"\r\nContent-Disposition: attachment',
        'name="manifest"; name="files"',
        'name="man',
        'name="manifest"; filename*=utf-7\'\'x',
        'filename="x"',
    ],
)  # fmt: skip
def test_mf_12_a_manifest_in_a_strange_part(server: Server, head: str) -> None:
    raw = exchange(server, submission(file("main.py", b""), (head, base64.b64encode(b"{}"))))
    refused(raw)


def test_mf_12_two_manifests(server: Server) -> None:
    parts = (file("main.py", b""), asked({"timeout": 1}), asked({"timeout": 2}))
    refused(exchange(server, submission(*parts)), reason="invalid_manifest")


JSON_BODIES: dict[str, Lazy] = {
    "nothing": b"",
    "list": b"[]",
    "null": b"null",
    "no-files": b"{}",
    "files-is-a-list": b'{"files": []}',
    "no-file": b'{"files": {}}',
    "unknown-key": b'{"files": {"main.py": ""}, "file": 1}',
    "number": b'{"files": {"main.py": 1}}',
    "null-file": b'{"files": {"main.py": null}}',
    "bad-base64": b'{"files": {"main.py": {"base64": "!"}}}',
    "base64-that-is-not-ascii": '{"files": {"main.py": {"base64": "é"}}}'.encode(),
    "base64-and-more": b'{"files": {"main.py": {"base64": "", "x": 1}}}',
    "half-a-character": b'{"files": {"main.py": "\\ud800"}}',
    "half-a-character-name": b'{"files": {"\\ud800": ""}}',
    "not-utf-8": b'{"files": {"main.py": "\xff"}}',
    "not-utf-8-name": b'{"files": {"\xff.py": ""}}',
    "utf-16": '{"files": {"main.py": ""}}'.encode("utf-16"),
    "bom": b'\xef\xbb\xbf{"files": {"main.py": ""}}',
    "deep": b'{"files": ' + b'{"a":' * 100_000,
    "deep-lists": b"[" * 1_000_000,
    "nearly-too-deep": b'{"files": {"main.py": ""}, "manifest": ' + b"[" * 990 + b"]" * 990 + b"}",
    "long-number": b'{"files": ' + b"9" * 100_000 + b"}",
    "1001-files": json.dumps({"files": {f"{n}.py": "" for n in range(1001)}}).encode(),
    "manifest-is-text": b'{"files": {"main.py": ""}, "manifest": "{}"}',
    "17-mb": lambda: b'{"files": {"main.py": "' + b"a" * (17 * MIB) + b'"}}',
}  # fmt: skip


@pytest.mark.parametrize(
    "body", [pytest.param(body, id=name) for name, body in JSON_BODIES.items()]
)
def test_mf_a_body_of_json_that_is_no_submission(server: Server, body: Lazy) -> None:
    refused(exchange(server, json_submission(made(body))), 400, 413)


def test_mf_refused_bodies_of_json_leave_no_bytes(server: Server) -> None:
    files = {f"{name}.bin": "x" * (MIB // 4) for name in range(8)}
    for manifest in ({"timout": 1}, {"timeout": 0}, {"entrypoint": "x"}, "x", {"timout": 1}):
        refused(exchange(server, json_submission({"files": files, "manifest": manifest})))
    damaged: dict[str, object] = {**files, "y": {"base64": "!"}}
    refused(exchange(server, json_submission({"files": damaged})))


# --- AR: archives and names of files -----------------------------------------------------------

BAD_NAMES = [
    ("AR-01", "../../etc/x"),
    ("AR-01", "a/../../x"),
    ("AR-01", ".."),
    ("AR-01", "./../x"),
    ("AR-01", "a/.."),
    ("AR-01", "a/../x"),
    ("AR-02", "/etc/x"),
    ("AR-02", "//x"),
    ("AR-02", "\\\\srv\\x"),
    ("AR-02", "C:\\x"),
    ("AR-02", "/proc/self/cwd/x"),
    ("AR-13", "n" * 256),
    ("AR-13", "/".join(["d" * 200] * 25)),
    ("AR-13", "/".join(["d"] * 500)),
    ("AR-13", "d/" * 65 + "x"),
    ("AR-13", "."),
    ("AR-13", "a\\b"),
]
DOORS = ("tar.gz", "zip", "loose", "json")


def through(door: str, *entries: Entry, manifest: dict[str, object] | None = None) -> bytes:
    """The submission of these files by one of the ways in."""
    manifest = manifest or BASIC
    if door in PACKERS:
        return archive(door, *entries, manifest=manifest)
    if door == "loose":
        parts = [file(e.name.replace("\\", "\\\\"), e.content) for e in entries]
        return submission(*parts, asked(manifest))
    files = {e.name: {"base64": base64.b64encode(e.content).decode()} for e in entries}
    return json_submission({"files": files, "manifest": manifest})


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, id=f"{case}-{name[:20]}") for case, name in BAD_NAMES]
)
def test_ar_01_a_name_that_leads_elsewhere(server: Server, name: str, door: str) -> None:
    refused(exchange(server, through(door, MAIN, Entry(name))), reason="invalid_upload")


@pytest.mark.parametrize("door", ("tar.gz", "zip"))
def test_ar_02_a_drive_letter(server: Server, door: str) -> None:
    refused(exchange(server, through(door, MAIN, Entry("C:x"))), reason="invalid_upload")


def test_ar_02_a_home_is_nobodys(server: Server) -> None:
    """AR-02: '~root' is a folder of that name."""
    code = Entry("main.py", b"print(open('/job/~root/x').read())")
    for door in DOORS:
        with ran(server, through(door, code, Entry("~root/x", b"inside"))) as job:
            assert job["logs"]["stdout"] == "inside\n"


ODD_NAMES = [
    "a\nb", "a\rb", "a\x1b[31mb", "a\x7fb", "a\u202eb", "\udcff\udcfe", "-rf", " leading",
    "dot.", "trailing ", "n" * 255, "%2e%2e%2f", "<img src=x onerror=alert(1)>", "a;b", 'a"b',
    "ü", "u\u0308", "*", "aux", "a:b", "\u0080", "\ufeffx", "\U0001f600",
]  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_ar_13_a_name_that_is_only_odd(server: Server, door: str) -> None:
    """AR-13: taken as it is, or refused; what was taken is listed, and comes back by its URL."""
    for name in ODD_NAMES:
        if "\udcff" in name and door in ("zip", "json"):
            continue  # they have no such names
        manifest: dict[str, object] = {**BASIC, "outputs": ["d/*"]}
        raw = through(door, MAIN, Entry(f"d/{name}", b"kept"), manifest=manifest)
        answer = parse(exchange(server, raw.replace(b"/submit HTTP", b"/submit?wait=60 HTTP")))
        if answer.status != 200:
            refused(exchange(server, raw), reason="invalid_upload")
            assert door != "tar.gz", name
            continue
        try:
            assert [output["size"] for output in answer.json["outputs"]] == [4], name
            got = exchange(server, request("GET", answer.json["outputs"][0]["download_url"]))
            assert parse(got).body == b"kept", name
        finally:
            delete(server, answer.json)


TEN_MIB = bytes(10 * MIB)
LINKS = [
    ("AR-03-symlink", Entry("a", kind="symlink", link="/"), Entry("a/x")),
    ("AR-03-chain", Entry("a", kind="symlink", link=".."), Entry("b", kind="symlink", link="a/..")),
    ("AR-03-then-folder", Entry("a", kind="symlink", link="/tmp"), Entry("a/", kind="folder")),
    ("AR-19-main-is-a-symlink", Entry("main.py", kind="symlink", link="/etc/passwd")),
    ("AR-20-job-json-is-a-symlink", MAIN, Entry("job.json", kind="symlink", link="/etc/passwd")),
    ("AR-26-loop", Entry("main.py", kind="symlink", link="main.py")),
    ("AR-06-fifo", MAIN, Entry("pipe", kind="fifo")),
    ("AR-06-char", MAIN, Entry("null", kind="char")),
    ("AR-06-block", MAIN, Entry("sda", kind="block")),
    ("AR-19-main-is-a-fifo", Entry("main.py", kind="fifo")),
    ("AR-20-job-json-is-a-fifo", MAIN, Entry("job.json", kind="fifo")),
    ("AR-12-twice", MAIN, Entry("x"), Entry("x", b"other")),
    ("AR-12-main-twice", MAIN, Entry("main.py", b"other")),
    ("AR-12-file-symlink-file", Entry("x"), Entry("x", kind="symlink", link="/etc/x"), Entry("x")),
    ("AR-12-file-and-below", MAIN, Entry("a"), Entry("a/b")),
    ("AR-12-below-and-file", MAIN, Entry("a/b"), Entry("a")),
    ("AR-12-dotted-twice", MAIN, Entry("x"), Entry("./x")),
    ("AR-12-file-and-folder", MAIN, Entry("x"), Entry("x/", kind="folder")),
    ("AR-12-doubled-slash", MAIN, Entry("a/x"), Entry("a//x")),
    ("AR-15-no-file", Entry("a/", kind="folder"), Entry("b/", kind="folder")),
    ("AR-15-nothing",),
    ("AR-20-job-json-is-large", MAIN, Entry("job.json", b" " * MIB)),
    ("AR-20-job-json-is-a-folder", Entry("job.json/", kind="folder")),
    ("AR-26-no-entrypoint", Entry("other.py")),
    ("AR-26-entrypoint-is-a-folder", Entry("main.py/", kind="folder"), Entry("x")),
    ("AR-08-110-mib", MAIN, *(Entry(f"{n}", TEN_MIB) for n in range(11))),
]  # fmt: skip
TAR_ONLY = [
    ("AR-04-shadow", MAIN, Entry("x", kind="hardlink", link="/etc/shadow")),
    ("AR-04-parent", MAIN, Entry("x", kind="hardlink", link="../x")),
    ("AR-04-symlink", Entry("s", kind="symlink", link="/x"), Entry("x", kind="hardlink", link="s")),
    *((f"AR-06-{kind}", MAIN, Entry("x", kind=kind))
      for kind in ("contiguous", "dump", "volume", "multi", "unknown", "sparse")),
    ("AR-13-nul", MAIN, Entry("x", pax={"path": "a\0b"})),
    ("AR-13-pax-leads-out", MAIN, Entry("x", pax={"path": "../../x"})),
    ("AR-13-pax-size", MAIN, Entry("x", b"abc", pax={"size": "-1"})),
    ("AR-13-pax-large", MAIN, Entry("x", b"abc", pax={"size": "9" * 30})),
    ("AR-13-pax-words", MAIN, Entry("x", b"abc", pax={"size": "x", "mtime": "nan"})),
    ("AR-13-empty", MAIN, Entry("")),
]  # fmt: skip
ZIP_ONLY = [
    ("AR-06-socket", MAIN, Entry("x", kind="socket")),
    ("AR-13-nul", MAIN, Entry("a\0b")),
    ("AR-13-empty", MAIN, Entry("")),
    ("AR-06-folder-with-bytes", MAIN, Entry("x/", b"bytes", kind="folder")),
]


@pytest.mark.parametrize(
    ("form", "entries"),
    [
        pytest.param(form, entries, id=f"{name}-{form}")
        for forms, cases in (
            (("tar.gz", "zip"), LINKS), (("tar.gz",), TAR_ONLY), (("zip",), ZIP_ONLY),
        )
        for name, *entries in cases
        for form in forms
    ],
)  # fmt: skip
def test_ar_03_a_member_that_must_not_be(
    server: Server, form: str, entries: Sequence[Entry]
) -> None:
    """AR-04: nor is the target of a link touched."""
    before = os.stat("/etc/shadow")
    refused(exchange(server, archive(form, *entries)))
    after = os.stat("/etc/shadow")
    assert (after.st_nlink, after.st_mode, after.st_mtime) == (
        before.st_nlink, before.st_mode, before.st_mtime,
    )  # fmt: skip


GOOD_TAR = tar_of([MAIN, Entry("data", random.Random(1).randbytes(20_000))])
GOOD_GZ = gzip.compress(GOOD_TAR)
GOOD_ZIP = zip_of([MAIN, Entry("data", random.Random(1).randbytes(20_000))])


def spoilt(raw: bytes, at: int, new: bytes) -> bytes:
    at %= len(raw)
    return raw[:at] + new + raw[at + len(new) :]


DAMAGED: list[tuple[str, str, Lazy]] = [
    ("AR-15-truncated-tar.gz", "tar.gz", GOOD_GZ[:10_000]),
    ("AR-15-truncated-by-one", "tar.gz", GOOD_GZ[:-1]),
    ("AR-15-no-trailer", "tar.gz", GOOD_GZ[:-8]),
    ("AR-15-wrong-crc", "tar.gz", spoilt(GOOD_GZ, -8, b"\0\0\0\0")),
    ("AR-15-wrong-size", "tar.gz", spoilt(GOOD_GZ, -4, b"\0\0\0\0")),
    ("AR-15-garbage-behind", "tar.gz", GOOD_GZ + b"garbage"),
    ("AR-15-only-a-head", "tar.gz", GOOD_GZ[:10]),
    ("AR-15-magic", "tar.gz", b"\x1f\x8b"),
    ("AR-15-bad-method", "tar.gz", spoilt(GOOD_GZ, 2, b"\7")),
    ("AR-15-bad-block", "tar.gz", GOOD_GZ[:10] + b"\xff" * 1000),
    ("AR-15-no-bytes", "tar.gz", b""),
    ("AR-15-not-gzip", "tar.gz", GOOD_TAR),
    ("AR-15-zip-called-tar.gz", "tar.gz", GOOD_ZIP),
    ("AR-15-header-checksum", "tar.gz", gzip.compress(spoilt(GOOD_TAR, 150, b"1"))),
    ("AR-15-second-header", "tar.gz", gzip.compress(spoilt(GOOD_TAR, 1024 + 150, b"1"))),
    ("AR-15-cut-tar", "tar.gz", gzip.compress(GOOD_TAR[:5000])),
    ("AR-15-empty-tar", "tar.gz", gzip.compress(bytes(10_240))),
    ("AR-15-empty-gzip", "tar.gz", gzip.compress(b"")),
    ("AR-15-text-in-gzip", "tar.gz", gzip.compress(b"print(1)\n" * 200)),
    ("AR-15-no-tar", "tar", b"no tar at all"),
    ("AR-15-truncated-zip", "zip", GOOD_ZIP[:10_000]),
    ("AR-15-truncated-zip-by-one", "zip", GOOD_ZIP[:-1]),
    ("AR-15-zip-head-only", "zip", GOOD_ZIP[:30]),
    ("AR-15-zip-magic", "zip", b"PK\3\4"),
    ("AR-15-zip-no-bytes", "zip", b""),
    ("AR-15-not-zip", "zip", GOOD_GZ),
    ("AR-15-zip-garbage-behind", "zip", GOOD_ZIP + b"garbage"),
    ("AR-15-zip-no-table", "zip", GOOD_ZIP[: GOOD_ZIP.index(b"PK\1\2")]),
    ("AR-15-zip-wrong-crc", "zip", spoilt(GOOD_ZIP, GOOD_ZIP.index(b"PK\1\2") + 16, b"\0\0\0\0")),
    ("AR-15-zip-bad-data", "zip", spoilt(GOOD_ZIP, 2000, b"\xff" * 50)),
    ("AR-15-zip-encrypted", "zip", spoilt(GOOD_ZIP, GOOD_ZIP.index(b"PK\1\2") + 8, b"\1")),
    ("AR-15-zip-method-99", "zip", spoilt(GOOD_ZIP, GOOD_ZIP.index(b"PK\1\2") + 10, b"\x63")),
    ("AR-15-zip-two-names", "zip", GOOD_ZIP.replace(b"main.py", b"mean.py", 1)),
    ("AR-15-zip-many-disks", "zip", spoilt(GOOD_ZIP, -18, b"\1\0\1\0")),
    ("AR-15-zip-many-rows", "zip", spoilt(GOOD_ZIP, -14, b"\xff\xff\xff\xff")),
    ("AR-15-zip-table-elsewhere", "zip", spoilt(GOOD_ZIP, -6, b"\xff\xff\xff\x7f")),
    ("AR-08-zip-size-lies", "zip", spoilt(GOOD_ZIP, GOOD_ZIP.index(b"PK\1\2") + 24, b"\1\0\0\0")),
    ("AR-08-zip-bomb", "zip", lambda: zip_of([MAIN, Entry("zeros", bytes(120 * MIB))])),
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "content"), [pytest.param(form, content, id=name) for name, form, content in DAMAGED]
)
def test_ar_15_a_damaged_archive(server: Server, form: str, content: Lazy) -> None:
    refused(exchange(server, packed(form, made(content))), reason="invalid_upload")


@pytest.mark.parametrize("form", PACKERS)
def test_ar_15_bytes_that_were_changed_on_the_way(server: Server, form: str) -> None:
    """AR-15: any bytes; a refusal, or a job that ends. The seed is fixed."""
    chance = random.Random(form)
    whole = GOOD_TAR if form == "tar.gz" else GOOD_ZIP
    places = [n for n in range(len(whole)) if not 1200 < n < len(whole) - 500]
    for _ in range(20):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            content[chance.choice(places)] = chance.randrange(256)
        content[:4] = whole[:4]
        sent = gzip.compress(bytes(content), 1) if form == "tar.gz" else bytes(content)
        refused_or_ran(server, packed(form, sent))


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


BOMBS: list[tuple[str, Lazy]] = [
    ("AR-08-1-gb", lambda: swollen(tarfile.REGTYPE, 1024)),
    ("AR-08-100-members", lambda: b"".join(
        gzip.compress(tar_head(tarfile.REGTYPE, 10 * MIB, f"{n}")) + zeros(10)
        for n in range(100))),
    ("AR-08-padding", lambda: gzip.compress(GOOD_TAR) + zeros(1024)),
    ("AR-08-pax-header", lambda: swollen(tarfile.XHDTYPE, 1024)),
    ("AR-08-global-pax-header", lambda: swollen(tarfile.XGLTYPE, 100)),
    ("AR-08-long-name", lambda: swollen(tarfile.GNUTYPE_LONGNAME, 1024)),
    ("AR-08-long-name-90-mb", lambda:
     swollen(tarfile.GNUTYPE_LONGNAME, 90) + gzip.compress(GOOD_TAR)),
    ("AR-08-long-link", lambda: swollen(tarfile.GNUTYPE_LONGLINK, 1024)),
    ("AR-08-8-exabytes", lambda: gzip.compress(tar_head(tarfile.REGTYPE, 1 << 62)) + zeros(10)),
    ("AR-10-200000-members", lambda: gzip.compress(
        b"".join(tar_head(tarfile.REGTYPE, 0, f"{n}") for n in range(11_000)), 1)
     + gzip.compress(tar_head(tarfile.REGTYPE, 0) * 2000) * 95),
    ("AR-10-200000-headers", lambda: gzip.compress(tar_head(tarfile.XGLTYPE, 0) * 2000) * 100),
]  # fmt: skip


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in BOMBS])
def test_ar_08_a_bomb(server: Server, calm: Calm, content: Lazy) -> None:
    """AR-17: it goes off in a sandbox; the server stays small and answers."""
    raw = packed("tar.gz", made(content))
    before = memory_of(calm.pids["web"]).rss
    began = time.monotonic()
    refused(exchange(server, raw), reason="invalid_upload")
    assert time.monotonic() - began < 10
    assert memory_of(calm.pids["web"]).rss - before < 64 * MIB


def test_ar_10_many_members_of_a_zip(server: Server) -> None:
    refused(exchange(server, archive("zip", *(Entry(f"{n}") for n in range(11_000)))))


def test_ar_08_members_of_a_zip_that_share_their_bytes(server: Server) -> None:
    table_at = GOOD_ZIP.index(b"PK\1\2")
    row = GOOD_ZIP[table_at : GOOD_ZIP.index(b"PK\1\2", table_at + 4)]
    table = row + row.replace(b"main.py", b"mean.py")
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 2, 2, len(table), table_at, 0)
    refused(exchange(server, packed("zip", GOOD_ZIP[:table_at] + table + end)))


def test_ar_08_an_archive_in_an_archive_is_a_file(server: Server) -> None:
    inner = gzip.compress(tar_of([Entry("x", zeros(1024))]))
    code = b"import os; print(os.path.getsize('inner.tar.gz'))"
    for form in PACKERS:
        with ran(
            server, archive(form, Entry("main.py", code), Entry("inner.tar.gz", inner))
        ) as job:
            assert job["logs"]["stdout"] == f"{len(inner)}\n"


def test_ar_13_a_name_in_a_zip_that_is_not_what_its_flag_says(server: Server) -> None:
    content = zip_of([MAIN, Entry("é")]).replace("é".encode(), b"\xff\xfe")
    refused_or_ran(server, packed("zip", content))


@pytest.mark.parametrize("form", PACKERS)
def test_ar_07_modes_and_owners_of_members_mean_nothing(server: Server, form: str) -> None:
    """AR-07, AR-22: nor do extended attributes."""
    code = b"""
import os
for name in sorted(os.listdir("m")):
    found = os.stat("m/" + name)
    assert found.st_uid == os.getuid(), name
    assert not os.listxattr("m/" + name), name
    print(name, oct(found.st_mode))
"""
    modes = (0o4755, 0o2755, 0o1777, 0o000, 0o777, 0o644)
    pax = {"SCHILY.xattr.security.capability": "x", "SCHILY.xattr.user.a": "b", "SCHILY.acl.access":
           "user::rwx", "LIBARCHIVE.xattr.user.a": "Yg", "RHT.security.selinux": "x"}  # fmt: skip
    entries = [Entry(f"m/{mode:04o}", mode=mode, pax=pax) for mode in modes]
    folder = Entry("closed/", kind="folder", mode=0)
    with ran(server, archive(form, Entry("main.py", code), folder, *entries)) as job:
        lines = job["logs"]["stdout"].split("\n")
    assert lines == [
        "0000 0o100644", "0644 0o100644", "0777 0o100755", "1777 0o100755", "2755 0o100755",
        "4755 0o100755", "",
    ], job["logs"]  # fmt: skip


@pytest.mark.parametrize("form", PACKERS)
def test_ar_19_files_may_be_called_like_anything(server: Server, form: str) -> None:
    """AR-19, AR-12: names that differ for Linux are different files."""
    names = ["upload.tar.gz", "script.sh", "stdout", "stderr", "run", ".sandrun", "job", "tmp",
             "A", "a", "\u00fc", "u\u0308", "python3", "json.py.txt"]  # fmt: skip
    code = b"import sys\nfor n in sys.argv[1:]: assert open(n).read() == n, n\nprint('all')"
    entries = [Entry(name, name.encode()) for name in names]
    manifest: dict[str, object] = {**BASIC, "args": names}
    with ran(server, archive(form, Entry("main.py", code), *entries, manifest=manifest)) as job:
        assert job["logs"]["stdout"] == "all\n", job["logs"]


def test_ar_20_no_answer_tells_what_the_host_has(server: Server) -> None:
    """AR-20: a file of the host and one that is nowhere are refused in the same words."""
    said = set()
    for path in ("/etc/shadow", "/etc/nobody", "../../../etc/passwd", "../../../etc/nobody"):
        for form in PACKERS:
            manifest: dict[str, object] = {"entrypoint": path}
            raw = exchange(server, archive(form, MAIN, manifest=manifest))
            said.add(refused(raw)["error"].replace(path, "PATH"))
    assert len(said) == 1


LOOSE = [
    ("AR-24-crlf", 'name="files"; filename="a\r\nX-Injected: 1"'),
    ("AR-24-escaped-crlf", "name=\"files\"; filename*=UTF-8''a%0d%0ab"),
    ("AR-24-escaped-nul", "name=\"files\"; filename*=UTF-8''main.py%00"),
    ("AR-24-escaped-parent", "name=\"files\"; filename*=UTF-8''..%2f..%2fx"),
    ("AR-24-not-utf-8", "name=\"files\"; filename*=UTF-8''%ff"),
    ("AR-24-latin-1", "name=\"files\"; filename*=iso-8859-1''x.py"),
    ("AR-24-raw-not-utf-8", 'name="files"; filename="\udcff.py"'),
    ("AR-24-5-kb", 'name="files"; filename="' + "a" * 5000 + '"'),
    ("AR-24-9-kb", 'name="files"; filename="' + "a" * 9000 + '"'),
    ("AR-24-parent", 'name="files"; filename=".."'),
    ("AR-24-empty", 'name="files"; filename=""'),
    ("AR-24-no-name", 'name="files"'),
    ("AR-24-folder", 'name="files"; filename="a/"'),
    ("AR-24-two-names", 'name="files"; filename="a.py"; filename="b.py"'),
    ("AR-24-open-quote", 'name="files"; filename="a.py'),
    ("AR-24-other-field", 'name="upload"; filename="a.py"'),
    ("AR-24-no-field", 'filename="a.py"'),
    ("AR-24-manifest-field", 'name="manifest"; filename="a.py"'),
    ("AR-24-unprintable", 'name="files"; filename="a\x1b.py"'),
    ("AR-24-rtl", 'name="files"; filename="a\u202eb.py"'),
]


@pytest.mark.parametrize("head", [pytest.param(head, id=name) for name, head in LOOSE])
def test_ar_24_the_name_of_a_part(server: Server, head: str) -> None:
    refused(exchange(server, submission((head, b"print(1)"))))


def test_ar_24_parts_that_do_not_go_together(server: Server) -> None:
    main, tgz = file("main.py", b""), file("x.tar.gz", GOOD_GZ)
    for parts in (
        (main, main),
        (main, file("./main.py", b"")),
        (file("a", b""), file("a/b", b"")),
        (main, tgz),
        (tgz, tgz),
        (tgz, file("x.zip", GOOD_ZIP)),
        (asked(BASIC),),
        (),
        ((file("main.py", b"")[0], b""), ('name="files"', b"text")),
        (file("x", b"----Tar\nPath: ../../etc/x\nSize: 1\n\nx"), main),
        (file("x", b"----Tar\nPath: /etc/x\nSize: 1\n\nx"),),
        (file("x", b"----Tar\nPath: \xff\nSize: 1\n\nx"),),
        (file("x", b"----Tar\nPath: \nSize: 1\n\nx"),),
        (file("x", b"----Tar\nPath:" + b" " * 10_000),),
        tuple(file(f"{n}.py", b"") for n in range(1001)),
    ):
        refused(exchange(server, submission(*parts)))


@pytest.mark.parametrize(
    ("files", "manifest", "reason"),
    [
        pytest.param({"main.py": b"\x7fELF" + bytes(1000)}, BASIC, "exit", id="AR-26-elf"),
        pytest.param({"main.sh": b"#!" + b"x" * 4096 + b"\nexit 3"},
                     {"entrypoint": "main.sh", "interpreter": "bash"}, "exit", id="AR-26-hash"),
        pytest.param({"main.py": b"\xff\xfe"}, BASIC, "exit", id="AR-26-not-text"),
        pytest.param({"main.py": b"os.kill"}, BASIC, "exit", id="AR-26-error"),
        pytest.param({"main.c": b"#include </etc/passwd>\n"}, {"entrypoint": "main.c"}, "exit",
                     id="AR-26-no-program"),
    ],
)  # fmt: skip
def test_ar_26_what_cannot_be_run_has_failed(
    server: Server, files: dict[str, bytes], manifest: dict[str, object], reason: str
) -> None:
    parts = [file(name, content) for name, content in files.items()]
    with ran(server, submission(*parts, asked(manifest))) as job:
        assert (job["status"], job["reason"]) == ("failed", reason)
        assert Path("/etc/passwd").read_text()[:60] not in job["logs"]["stderr"]


def test_ar_26_a_file_that_no_language_claims(server: Server) -> None:
    refused(exchange(server, submission(file("program", b"\x7fELF"))), reason="invalid_manifest")


# --- OC: what a job leaves, and how it is asked for ----------------------------------------------


def python(code: str, **manifest: object) -> bytes:
    return submission(file("main.py", code.encode()), asked({**BASIC, **manifest}))


def download(server: Server, job: dict[str, Any], path: str) -> bytes:
    return exchange(server, request("GET", f"/download/{job['job_id']}/{path}"))


NOT_FILES = """
import os, socket
os.makedirs("out/closed/deep"); os.makedirs("folder.txt")
for name, target in {
    "result.txt": "/etc/passwd", "environ": "/proc/self/environ", "up": "..", "root": "/",
    "other": "/proc/1/root/etc/shadow", "gone": "/nowhere", "loop": "loop", "self": "main.py",
    "out/etc": "/etc", "out/passwd": "/etc/passwd", "out/back": "../out",
}.items():
    os.symlink(target, name)
os.mkfifo("pipe"); os.mkfifo("out/pipe")
socket.socket(socket.AF_UNIX).bind("sock")
for path in ("out/real", "out/closed/deep/file", "none"):
    open(path, "w").write(path)
os.chmod("none", 0); os.chmod("out/closed/deep", 0); os.chmod("out/closed", 0); os.chmod("out", 0)
open(".hidden", "w").write("hidden")
"""


@pytest.mark.parametrize(
    ("outputs", "kept"),
    [
        ([], [".hidden", "none", "out/closed/deep/file", "out/real"]),
        (["out/**"], ["out/closed/deep/file", "out/real"]),
        (["result.txt", "environ", "pipe", "sock", "folder.txt", "root/**", "loop", "up/*"], []),
        (["out/etc/passwd", "out/passwd", "self", "none"], ["none"]),
        (["~/*", "$HOME/*", "{a,b}", "[", "[!", "**/**/**/pipe"], []),
    ],
)
def test_oc_01_links_and_pipes_are_nobodys_outputs(
    server: Server, outputs: list[str], kept: list[str]
) -> None:
    """OC-01, OC-02, OC-05, OC-12, OC-13, OC-14: files of the job and nothing else, and only those
    that were asked for.
    """
    with ran(server, python(NOT_FILES, outputs=outputs)) as job:
        assert job["status"] == "completed", job["logs"]
        assert sorted(output["path"] for output in job["outputs"]) == kept
        for path in kept:
            content = parse(download(server, job, path)).body.decode()
            assert content == (path if path != ".hidden" else "hidden")
        for path in (
            "result.txt", "environ", "up/x", "root/etc/passwd", "other", "loop", "self", "pipe",
            "out/etc/passwd", "out/passwd", "out/back/real", "sock", "folder.txt", "main.py",
        ):  # fmt: skip
            refused(download(server, job, path), 404, reason="unknown_file")
        for form in ("tar.gz", "zip"):
            assert sorted(unpacked(server, job, form)) == kept


def unpacked(server: Server, job: dict[str, Any], form: str) -> dict[str, bytes]:
    """All outputs as one archive, whose members are files and nothing else."""
    target = f"/download/{job['job_id']}?format={form}"
    answer = parse(exchange(server, request("GET", target)))
    assert answer.status == 200
    hardened(answer)
    buffer = io.BytesIO(answer.body)
    if form == "zip":
        with zipfile.ZipFile(buffer) as opened:
            assert all(stat.S_ISREG(info.external_attr >> 16) for info in opened.infolist())
            return {info.filename: opened.read(info) for info in opened.infolist()}
    with tarfile.open(fileobj=buffer) as tar:
        members = tar.getmembers()
        assert all(info.isreg() and info.mode in (0o644, 0o755) for info in members)
        return {info.name: tar.extractfile(info).read() for info in members}  # type: ignore[union-attr]


OUTPUT_NAMES = [
    b'a"b', b"a'b", b"a\r\nX-Injected: x=1", b"a\nb", "ü".encode(), b"\xff\xfe", b"a\xe9b",
    "\u202efdp.exe".encode(), b"n" * 255, b" ", b"...", b"%2e%2e%2f", b"%00", b"a%0d%0ab",
    b"<img src=x onerror=alert(1)>", b"a;b", b"-", b"--", b"a?b", b"a#b", b"a+b c", b"a\\b",
    b"\x01\x1b[31m", b"\x7f", b"C:x", b"a&b=c", b"~", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80",
    b"d/e/f", b"d/ /f", b"d/%2f/f", b"d;x/f",
]  # fmt: skip


def test_oc_09_any_name_is_listed_and_can_be_fetched(server: Server) -> None:
    """OC-09, OC-16, OC-17 (HEAD), WB-07: the URL in the listing leads to the very file, headers are
    ASCII, and archives hold the names.
    """
    code = f"""
import os
for name in {OUTPUT_NAMES!r}:
    os.makedirs(os.path.dirname(b"./" + name), exist_ok=True)
    open(name, "wb").write(name)
"""
    with ran(server, python(code)) as job:
        assert job["status"] == "completed", job["logs"]
        listing = server.get(f"/outputs/{job['job_id']}")
        assert len(listing["outputs"]) == len(OUTPUT_NAMES) == len(set(listing["files"]))
        assert set(job["output_files"]) == set(listing["files"])
        got = set()
        for output in listing["outputs"]:
            raw = exchange(server, request("GET", output["download_url"]))
            answer = parse(raw)
            assert answer.status == 200, output
            hardened(answer)
            assert answer.headers["content-disposition"].startswith("attachment; filename=")
            assert raw.partition(b"\r\n\r\n")[0].isascii()
            assert hashlib.sha256(answer.body).hexdigest() == output["sha256"]
            assert output["size"] == len(answer.body) == int(answer.headers["content-length"])
            got.add(answer.body)
            head = exchange(server, request("HEAD", output["download_url"]))
            assert parse(head).headers == answer.headers and parse(head).body == b""
        assert got == set(OUTPUT_NAMES)
        names = unpacked(server, job, "tar.gz")
        assert {os.fsencode(name) for name in names} == got == set(names.values())
        zipped = unpacked(server, job, "zip")
        assert set(zipped.values()) == got
        for name in zipped:
            assert not name.startswith("/") and "\\" not in name and ".." not in name.split("/")


def test_oc_03_files_that_flip_while_they_are_collected(server: Server) -> None:
    """OC-03, OC-22: whoever outlives the program is dead before anything is collected."""
    code = """
import os, sys
open("real", "w").write("real"); os.symlink("/etc/passwd", "link"); os.rename("real", "a")
os.rename("link", "b")
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        while True:
            try:
                os.rename("a", "c"); os.rename("b", "a"); os.rename("c", "b")
                open("late", "a").write("late")
            except OSError:
                pass
"""
    with ran(server, python(code)) as job:
        for output in job["outputs"]:
            body = parse(exchange(server, request("GET", output["download_url"]))).body
            assert body == b"real" or set(body.split(b"late")) == {b""}, output
            assert hashlib.sha256(body).hexdigest() == output["sha256"]


def test_oc_07_too_many_and_too_deep(server: Server) -> None:
    code = """
import os
for n in range(10_050):
    os.close(os.open(f"f{n}", os.O_CREAT | os.O_WRONLY))
for n in range(1000):
    os.mkdir("d"); os.chdir("d")
open("deepest", "w").write("x")
"""
    with ran(server, python(code)) as job:
        assert job["status"] == "completed", job["logs"]
        listing = server.get(f"/outputs/{job['job_id']}")
        assert (listing["total_files"], listing["truncated"]) == (10_000, True)
        refused(download(server, job, "d/" * 1000 + "deepest"), 404)


def test_oc_10_paths_of_downloads_that_are_no_names(server: Server) -> None:
    with ran(server, python("open('out', 'w').write('x')")) as job:
        for path in (
            "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc%2fpasswd",
            "%252e%252e%252fetc%252fpasswd", "..%5c..%5cetc", "/etc/passwd", "//etc/passwd",
            "%2Fetc%2Fpasswd", "%00", "out%00", "out%00.txt", ".%00.", "out/", "out/.", "./out",
            "x/../out", "out%20", "OUT", "%6fut/", "%", "%zz", "%u002e", "%c0%ae%c0%ae/etc/passwd",
            "%ff", "out;x", "out%23", "a" * 15_000, "a/" * 7000, "%0d%0aX-Injected:%20x", "*",
            "proc/self/environ", "main.py", "%F0%9F%98%80", "out%2500",
        ):  # fmt: skip
            body = refused(download(server, job, path), 404)
            assert body["reason"] in ("unknown_file", "unknown_path"), path
        assert parse(download(server, job, "out")).body == b"x"
        assert parse(download(server, job, "%6f%75t")).body == b"x"
        refused(download(server, job, "a" * 17_000), 414, reason="too_large")


def test_oc_17_ranges_are_ignored(server: Server) -> None:
    with ran(server, python("open('out', 'w').write('0123456789')")) as job:
        many = "bytes=" + ",".join(f"{n}-" for n in range(1000))
        for value in (
            "bytes=0-0", "bytes=-5", "bytes=9-1", "bytes=100-", many, "bytes=", "lines=1", "x",
        ):  # fmt: skip
            target = f"/download/{job['job_id']}/out"
            raw = exchange(server, request("GET", target, None, f"Range: {value}", 'If-Range: "x"'))
            answer = parse(raw)
            assert (answer.status, answer.body) == (200, b"0123456789"), value
            assert "accept-ranges" not in answer.headers and "content-range" not in answer.headers


def test_oc_19_a_download_outlives_its_job(server: Server) -> None:
    """OC-19, OC-20: a fetch, a HEAD and one that is broken off delete nothing; DELETE does, and a
    download that runs comes to its end.
    """
    size = 30 * MIB
    answer = parse(exchange(server, python(f"open('out', 'wb').write(bytes({size}))")))
    job = answer.json
    server.finish(job["job_id"])
    target = f"/download/{job['job_id']}/out"
    assert parse(exchange(server, request("HEAD", target))).headers["content-length"] == str(size)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            client.sendall(request("GET", target))
            client.recv(1000)
    for headers in (("Purpose: prefetch", "Sec-Purpose: prefetch"), ()):
        assert len(parse(exchange(server, request("GET", target, None, *headers))).body) == size
    refused(exchange(server, request("GET", f"/download/{job['job_id']}?delete=1")), 401)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(request("GET", target))
        received = len(client.recv(1000).partition(b"\r\n\r\n")[2])
        delete(server, job)
        while piece := client.recv(65536):
            received += len(piece)
    assert received >= size
    refused(exchange(server, request("GET", target)), 404, reason="unknown_job")


def test_oc_23_files_without_a_byte(server: Server) -> None:
    with ran(server, python("open('empty', 'w'); open('one', 'w').write('1')")) as job:
        assert [(out["path"], out["size"]) for out in job["outputs"]] == [("empty", 0), ("one", 1)]
        answer = parse(download(server, job, "empty"))
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


# --- WB: browsers and bad clients --------------------------------------------------------------

MAIN_PART = file("main.py", b"print('ran')")
FORM = "Content-Type: multipart/form-data; boundary=xYx"
JSON = "Content-Type: application/json"
EVIL = [
    "Origin: https://evil.example", "Origin: null", "Origin: file://", "Origin: ",
    "Origin: http://localhost.evil.example", "Origin: http://evil.example/localhost",
    "Origin: http://localhost@evil.example", "Origin: http://localhost:1", "Origin: x",
    "Origin: http://[", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site",
    "Sec-Fetch-Site: x", "Origin: http://localhost\r\nOrigin: http://evil.example",
]  # fmt: skip


@pytest.mark.parametrize("header", EVIL, ids=ascii)
def test_wb_01_another_web_site_starts_nothing(server: Server, header: str) -> None:
    """WB-01, WB-04: and it can read nothing."""
    for raw in (
        submission(MAIN_PART, headers=[header]),
        request("POST", "/submit", b'{"files": {"main.py": ""}}', JSON, header),
        request("POST", "/run", b"print(1)", header),
        request("POST", "/jobs/x/cancel", b"", header),
        request("DELETE", "/jobs/x", None, header),
    ):
        refused(exchange(server, raw), 403, reason="foreign_origin")
    answer = parse(exchange(server, request("GET", "/stats", None, header)))
    assert answer.status == 200
    hardened(answer)
    preflight = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x")
    refused(exchange(server, request("OPTIONS", "/submit", None, header, *preflight)), 405)


def test_wb_01_our_own_page_and_a_program_may(server: Server) -> None:
    for headers in ((), ("Origin: http://localhost", "Sec-Fetch-Site: same-origin")):
        with ran(server, submission(MAIN_PART, headers=headers)) as job:
            assert job["logs"]["stdout"] == "ran\n"


ACTIVE_TYPES = re.compile(r"html|xml|svg|script|css|flash|mhtml|xsl|message/|multipart/|wasm")


def test_wb_05_no_output_is_run_by_a_browser(server: Server) -> None:
    """WB-05, WB-17."""
    names = [
        "evil.html", "evil.htm", "evil.svg", "evil.svgz", "evil.xml", "evil.xsl", "evil.xhtml",
        "evil.js", "evil.mjs", "evil.css", "evil.pdf", "evil.swf", "evil.mhtml", "evil.HTML",
        "evil", "evil.html.", "evil.wasm", "evil.eml", "evil.shtml", "evil.json", "evil.txt",
        "evil.rdf", "evil.map", "evil.hta", "evil.xht", ".htaccess", "evil.JS",
    ]  # fmt: skip
    code = f"for n in {names!r}: open(n, 'w').write('<script>alert(1)</script>')"
    with ran(server, python(code)) as job:
        assert len(job["outputs"]) == len(names)
        for output in job["outputs"]:
            answer = parse(exchange(server, request("GET", output["download_url"])))
            hardened(answer)
            kind = answer.headers["content-type"]
            assert not ACTIVE_TYPES.search(kind), (output["path"], kind)
            assert answer.headers["content-disposition"].startswith("attachment;")
            assert "sandbox" in answer.headers["content-security-policy"]


def test_wb_17_everything_about_a_job_is_for_once_and_for_here(server: Server) -> None:
    """WB-17, LG-07: and scripts in logs and names are text."""
    code = "print('<script>alert(1)</script>'); open('<b>', 'w')"
    with ran(server, python(code)) as job:
        number = job["job_id"]
        for path, kind in (
            (f"/status/{number}", "application/json"),
            (f"/logs/{number}", "application/json"),
            (f"/logs/{number}?stream=stdout", "text/plain; charset=utf-8"),
            (f"/outputs/{number}", "application/json"),
            (f"/download/{number}", "application/gzip"),
            ("/", "application/json"),
            ("/stats", "application/json"),
            ("/health", "application/json"),
            ("/environments", "application/json"),
        ):
            answer = parse(exchange(server, request("GET", path)))
            assert (answer.status, answer.headers["content-type"]) == (200, kind), path
            hardened(answer)
            head = parse(exchange(server, request("HEAD", path)))
            assert (head.status, head.body) == (200, b""), path
            assert head.headers["content-type"] == kind


def test_wb_07_nothing_of_a_request_comes_back_in_a_header(server: Server) -> None:
    evil = "%0d%0aX-Injected:%20x%00\u00ff"
    for path in (
        f"/{evil}", f"/status/{evil}", f"/logs/{evil}", f"/outputs/{evil}", f"/download/{evil}",
        f"/download/x/{evil}", f"/?{evil}", f"/jobs/{evil}",
    ):  # fmt: skip
        raw = exchange(server, request("GET", quote(path, safe="/?%:")))
        assert b"x-injected" not in raw.partition(b"\r\n\r\n")[0].lower()
        assert parse(raw).status in (200, 404, 405), path
    with ran(server, python("")) as job:
        for query in (f"format={evil}", f"stream={evil}", f"wait={evil}"):
            for what in ("status", "logs", "download"):
                raw = exchange(
                    server, request("GET", quote(f"/{what}/{job['job_id']}?{query}", "/?=%:"))
                )
                assert b"x-injected" not in raw.lower(), query
                assert parse(raw).status in (200, 400)


def part_flood(count: int, head: bytes, boundary: bytes = b"xYx") -> bytes:
    return (b"--" + boundary + b"\r\n" + head + b"\r\n\r\n\r\n") * count


EMPTY_PART = b'Content-Disposition: form-data; name="x"'
OPEN_PART = b"--xYx\r\n" + EMPTY_PART + b"\r\n\r\n"
FLOODS: dict[str, Lazy] = {
    "WB-11-empty-parts": lambda: part_flood(1_000_000, b"") + b"--xYx--\r\n",
    "WB-11-fields": lambda: part_flood(100_000, EMPTY_PART) + b"--xYx--\r\n",
    "WB-11-boundaries": lambda: b"--xYx\r\n" * 1_000_000,
    "WB-11-half-boundaries": lambda: OPEN_PART + b"\r\n--xY" * 1_000_000,
    "WB-11-false-boundaries": lambda: OPEN_PART + b"\r\n--xYxz" * 100_000,
    "WB-11-1-mb-of-head": lambda: b"--xYx\r\nX: " + b"a" * MIB + b"\r\n\r\n\r\n--xYx--\r\n",
    "WB-11-many-heads": lambda: b"--xYx\r\n" + b"X: a\r\n" * 100_000 + b"\r\n\r\n--xYx--\r\n",
    "WB-11-head-of-parameters": part_flood(1, EMPTY_PART + b'; a="b"' * 1000) + b"--xYx--\r\n",
    "WB-11-head-of-backslashes": part_flood(
        1, b'Content-Disposition: form-data; name="files"; filename="' + b"\\" * 8000) + b"--xYx--",
    "WB-11-no-end": multipart(MAIN_PART)[:-10],
    "WB-11-no-last-dashes": multipart(MAIN_PART)[:-4],
    "WB-11-only-an-end": b"--xYx--\r\n",
    "WB-11-nothing": b"",
    "WB-11-no-boundary": b"print(1)",
    "WB-11-preamble": b"preamble\r\n" + multipart(MAIN_PART),
    "WB-11-line-feeds": multipart(MAIN_PART).replace(b"\r\n", b"\n"),
    "WB-11-nested": multipart(
        ('name="files"\r\nContent-Type: multipart/mixed; boundary=in', multipart(MAIN_PART))),
    "WB-11-base64": multipart(
        (file("main.py", b"")[0] + "\r\nContent-Transfer-Encoding: base64", b"cHJp\r\n bnQ=")),
    "WB-11-no-disposition": part_flood(1, b"Content-Type: text/plain") + b"--xYx--\r\n",
    "WB-11-attachment": part_flood(1, b'Content-Disposition: attachment; name="files"')
                        + b"--xYx--\r\n",
}  # fmt: skip


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in FLOODS.items()])
def test_wb_11_a_form_that_is_none(server: Server, body: Lazy) -> None:
    raw = request("POST", "/submit", made(body), FORM)
    began = time.monotonic()
    refused(exchange(server, raw), reason="invalid_upload")
    assert time.monotonic() - began < 3


def test_wb_11_a_boundary_that_is_none(server: Server) -> None:
    for kind in (
        "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=" + "a" * 71, "multipart/form-data; boundary=a\tb",
        "multipart/form-data; boundary=\xe9", "multipart/form-data; boundary=a; boundary=b",
        'multipart/form-data; boundary="a', "multipart/form-data; boundary=a;b;c",
        'multipart/form-data; boundary="a "',
    ):  # fmt: skip
        raw = request("POST", "/submit", multipart(MAIN_PART), f"Content-Type: {kind}")
        refused(exchange(server, raw), 400, 415)


@pytest.mark.parametrize(
    "header",
    [
        "Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: ", "X: no-type", "Content-Type: multipart/mixed; boundary=xYx",
        "Content-Type: application/octet-stream", "Content-Type: application/jsonx",
        "Content-Type: \xff", "Content-Type: text/json", "Content-Type: ;boundary=xYx",
        FORM + "\r\nContent-Encoding: gzip", JSON + "\r\nContent-Encoding: br",
    ],
    ids=ascii,
)  # fmt: skip
def test_wb_21_a_body_of_another_type(server: Server, header: str) -> None:
    for body in (multipart(MAIN_PART), b'{"files": {"main.py": ""}}', b""):
        refused(exchange(server, request("POST", "/submit", body, header)), 415)


ROUTES = {
    "/": "GET", "/health": "GET", "/stats": "GET", "/environments": "GET", "/submit": "POST",
    "/run": "POST", "/status/x": "GET", "/logs/x": "GET", "/outputs/x": "GET", "/download/x": "GET",
    "/download/x/y": "GET", "/jobs/x": "DELETE", "/jobs/x/cancel": "POST", "/static/x": "GET",
}  # fmt: skip


@pytest.mark.parametrize("path", ROUTES)
def test_wb_12_other_verbs(server: Server, path: str) -> None:
    allowed = ROUTES[path]
    override = ("X-HTTP-Method-Override: DELETE", "X-Method-Override: POST", "X-HTTP-Method: PUT")
    for verb in (
        "TRACE",
        "PUT",
        "PATCH",
        "OPTIONS",
        "POST",
        "DELETE",
        "GET",
        "FOO",
        "A" * 99,
    ):
        if verb == allowed:
            continue
        raw = exchange(server, request(verb, path, None, *override))
        refused(raw, 405, reason="method_not_allowed")
        assert allowed in parse(raw).headers["allow"]
    head = parse(exchange(server, request("HEAD", path)))
    assert head.body == b""
    if allowed != "GET":
        assert head.status == 405
    else:
        get = parse(exchange(server, request("GET", path, None, *override)))
        assert (get.status, get.headers) == (head.status, head.headers), path


def test_wb_12_other_targets(server: Server) -> None:
    for line in (b"CONNECT localhost:80", b"OPTIONS *", b"CONNECT evil.example:443", b"GET *"):
        raw = line + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        refused(exchange(server, raw), 400, 404, 405)


@pytest.mark.parametrize(
    "path",
    [
        "//submit", "/submit/", "/SUBMIT", "/submit;x", "/submit%2f", "/./submit", "/x/../submit",
        "/%2e/submit", "//evil.example/submit", "/\\evil.example", "/submit%00", "/submit%0a",
        "/status", "/status/", "/jobs/x/cancel/", "/status/x/y", "/%", "/%zz", "/%ff%fe", "/\x7f",
        "/static/..%2f..%2fmanage.py", "/static/../settings.py", "/static/", "/static/%00",
        "/static/frontend/../../x", "/admin", "/admin/", "/__debug__/", "/.git/config", "/schema",
        "/metrics", "/api/submit", "/.env", "/robots.txt", "/favicon.ico", "/%2e%2e/etc/passwd",
        "/" + "a" * 15_000, "/" + "a/" * 7500, "/submit/../../../etc/passwd",
        "/status/" + "j" * 9000,
        "/status/%00", "/status/..", "/status/job-*", "/logs/%ff", "/status/%F0%9F%98%80",
        "/download//x", "/download/x/", "/jobs/", "/server-status", "/wp-login.php", "x", "?", "",
    ],
    ids=lambda path: ascii(path)[:30],
)  # fmt: skip
def test_wb_13_paths_that_lead_nowhere(server: Server, path: str) -> None:
    """WB-13, WB-22: not found, and never sent elsewhere."""
    for method in ("GET", "POST"):
        raw = exchange(server, request(method, path, b"" if method == "POST" else None))
        refused(raw, 400, 404, 405)
        assert "location" not in parse(raw).headers


HEADS = {
    "WB-16-600-headers": (431, "".join(f"X-{n}: a\r\n" for n in range(600))),
    "WB-16-64-kb-header": (431, "X: " + "a" * 65_536 + "\r\n"),
    "WB-16-64-kb-name": (431, "X" * 65_536 + ": a\r\n"),
    "WB-16-20-kb-of-headers": (431, "".join(f"X-{n}: {'a' * 1000}\r\n" for n in range(20))),
    "WB-16-nul": (400, "X: a\0b\r\n"),
    "WB-16-control": (400, "X: a\x0bb\r\n"),
    "WB-16-return": (400, "X: a\rb\r\n"),
    "WB-16-no-colon": (400, "X\r\n"),
    "WB-16-space-before-colon": (400, "X : a\r\n"),
    "WB-16-no-name": (400, ": a\r\n"),
    "WB-16-two-lengths": (400, "Content-Length: 1\r\nContent-Length: 2\r\n"),
    "WB-16-length-and-chunks": (400, "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
    "WB-16-negative-length": (400, "Content-Length: -1\r\n"),
    "WB-16-length-with-plus": (400, "Content-Length: +1\r\n"),
    "WB-16-length-in-hex": (400, "Content-Length: 0x1\r\n"),
    "WB-16-length-is-huge": (413, "Content-Length: " + "9" * 400 + "\r\n"),
    "WB-16-unknown-coding": (400, "Transfer-Encoding: gzip, chunked\r\n"),
    "WB-16-odd-coding": (400, "Transfer-Encoding: xchunked\r\n"),
    "WB-16-two-hosts": (400, "Host: localhost\r\nHost: evil.example\r\n"),
    "WB-16-foreign-host": (400, "Host: evil.example\r\n"),
    "WB-16-empty-host": (400, "Host: \r\n"),
    "WB-16-host-with-path": (400, "Host: localhost/evil\r\n"),
    "WB-16-host-with-user": (400, "Host: evil@localhost\r\n"),
    "WB-23-forwarded-host": (400, "Host: evil.example\r\nX-Forwarded-Host: localhost\r\n"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "head"), [pytest.param(*case, id=name) for name, case in HEADS.items()]
)
def test_wb_16_a_head_that_is_none(server: Server, status: int, head: str) -> None:
    host = "" if "Host: " in head.split("X-Forwarded")[0] else "Host: localhost\r\n"
    raw = f"GET /health HTTP/1.1\r\n{host}Connection: close\r\n{head}\r\n".encode("latin-1")
    refused(exchange(server, raw), status)


HOST = b"Host: localhost\r\nConnection: close\r\n\r\n"
CHUNKED = b"POST /submit HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST
NO_REQUESTS = {
    "WB-24-tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n",
    "WB-24-http-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "WB-24-http-0.9": b"GET /health\r\n\r\n",
    "WB-24-http-9": b"GET /health HTTP/9.9\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "WB-24-no-version": b"GET /health HTTP\r\nHost: localhost\r\n\r\n",
    "WB-24-words": b"one two three four\r\n\r\n",
    "WB-24-nothing": b"\r\n\r\n \r\n\r\n",
    "WB-24-no-host": b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n",
    "WB-24-bad-chunk": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "WB-24-negative-chunk": CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n",
    "WB-24-chunk-too-short": CHUNKED + b"1\r\nabc\r\n0\r\n\r\n",
    "WB-24-path-not-ascii": b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST,
    "WB-24-query-not-ascii": b"GET /?\xff HTTP/1.1\r\n" + HOST,
    "WB-24-verb-not-ascii": b"G\xc9T / HTTP/1.1\r\n" + HOST,
    "WB-24-nul-in-path": b"GET /\0 HTTP/1.1\r\n" + HOST,
}  # fmt: skip


@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in NO_REQUESTS.items()])
def test_wb_24_what_is_no_request(server: Server, raw: bytes) -> None:
    refused(exchange(server, raw), 400, 404)


def test_wb_24_an_upgrade_with_a_body(server: Server) -> None:
    websocket = (
        "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13", "Connection: Upgrade, close",
    )  # fmt: skip
    for target in ("/submit", "/run", "/", "/status/x"):
        refused(exchange(server, request("POST", target, b"x" * MIB, FORM, *websocket)), 400)
    headers = (
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABk",
        "Connection: Upgrade, close",
    )
    with ran(server, submission(MAIN_PART, headers=headers)) as job:  # not spoken: not heeded
        assert job["logs"]["stdout"] == "ran\n"


def test_wb_16_many_parameters_and_cookies(server: Server) -> None:
    many = "&".join(f"{n}=" for n in range(2500))
    refused(exchange(server, request("POST", f"/run?{many}", b"print(1)")))
    for path in ("/stats", "/health", "/"):
        answer = parse(exchange(server, request("GET", f"{path}?{many}", None)))
        assert answer.status == 200
    refused(exchange(server, request("GET", "/?" + "a=&" * 100_000)), 414)
    cookies = "Cookie: " + "; ".join(f"a{n}={'b' * 70}" for n in range(100))
    assert parse(exchange(server, request("GET", "/stats", None, cookies))).status == 200


def test_wb_23_what_proxies_say_is_not_believed(server: Server) -> None:
    headers = (
        "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "X-Forwarded-Port: 1",
        "Forwarded: for=1.2.3.4;host=evil.example;proto=https", "X-Original-URL: /stats",
        "X-Rewrite-URL: /stats", "X-Host: evil.example", "X-Script-Name: /evil", "Script-Name: /x",
        "Daphne-Root-Path: /evil", "X-Forwarded-Prefix: /evil", "X-Forwarded-For: x" + "1" * 9000,
    )  # fmt: skip
    raw = exchange(server, request("GET", "/health", None, *headers))
    assert json.loads(parse(raw).body)["status"] == "healthy" and b"evil" not in raw
    answer = parse(exchange(server, submission(MAIN_PART, headers=headers)))
    assert answer.headers["location"] == f"/status/{answer.json['job_id']}"
    server.finish(answer.json["job_id"])
    delete(server, answer.json)


RUNS = {
    "nothing": (b"", ""),
    "unknown-key": (b"print(1)", "?timout=1"),
    "twice": (b"print(1)", "?timeout=1&timeout=2"),
    "interpreter-twice": (b"print(1)", "?interpreter=python3&interpreter=bash"),
    "timeout-is-a-word": (b"print(1)", "?timeout=x"),
    "timeout-is-negative": (b"print(1)", "?timeout=-1"),
    "timeout-is-nothing": (b"print(1)", "?timeout="),
    "timeout-is-0": (b"print(1)", "?timeout=0"),
    "timeout-is-huge": (b"print(1)", "?timeout=" + "9" * 9000),
    "timeout-is-inf": (b"print(1)", "?timeout=1e999"),
    "timeout-is-nan": (b"print(1)", "?cpu_seconds=NaN"),
    "timeout-is-arabic": (b"print(1)", "?timeout=%D9%A3"),
    "wait-is-a-word": (b"print(1)", "?wait=x"),
    "wait-is-negative": (b"print(1)", "?wait=-1"),
    "wait-is-arabic": (b"print(1)", "?wait=%D9%A3"),
    "wait-is-nothing": (b"print(1)", "?wait="),
    "wait-is-nul": (b"print(1)", "?wait=%00"),
    "entrypoint": (b"print(1)", "?entrypoint=../x"),
    "interpreter-is-a-path": (b"print(1)", "?interpreter=/bin/sh"),
    "interpreter-is-a-command": (b"print(1)", "?interpreter=python3%20-c%20x"),
    "interpreter-is-nothing": (b"print(1)", "?interpreter="),
    "interpreter-is-long": (b"print(1)", "?interpreter=" + "a" * 10_000),
    "env-is-text": (b"print(1)", "?env=A=1"),
    "nul-in-args": (b"print(1)", "?args=%00"),
    "1001-args": (b"print(1)", "?" + "&".join(["args="] * 1001)),
    "outputs-lead-out": (b"print(1)", "?outputs=../x"),
    "manifest": (b"print(1)", "?manifest={}"),
    "no-key": (b"print(1)", "?=1"),
    "only-a-key": (b"print(1)", "?x"),
    "broken-escapes": (b"print(1)", "?%ff=%zz"),
    "requirements": (b"print(1)", "?requirements=numpy"),
    "gpu": (b"print(1)", "?gpu=1"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "query"), RUNS.values(), ids=list(RUNS))
def test_mf_02_a_run_that_makes_no_sense(server: Server, body: bytes, query: str) -> None:
    refused(exchange(server, request("POST", f"/run{query}", body)))


def test_mf_02_bad_questions_about_a_job(server: Server) -> None:
    with ran(server, python("")) as job:
        number = job["job_id"]
        for target in (
            f"/status/{number}?wait=x", f"/status/{number}?wait=-1", f"/status/{number}?wait=1.5",
            f"/status/{number}?wait=", f"/status/{number}?wait=%D9%A3", f"/logs/{number}?stream=",
            f"/logs/{number}?stream=stdin", f"/logs/{number}?stream=../x",
            f"/download/{number}?format=rar", f"/download/{number}?format=",
            f"/download/{number}?format=tar.gz%00",
        ):  # fmt: skip
            refused(exchange(server, request("GET", target)), reason="invalid_request")
        for wait in ("0", "0" * 9000 + "1", "9" * 9000):
            assert server.get(f"/status/{number}?wait={wait}")["status"] == "completed"


BEARERS = [
    ("", 401), ("Authorization: ", 401), ("Authorization: Bearer", 403),
    ("Authorization: Bearer ", 403), ("Authorization: Bearer x", 403),
    ("Authorization: Basic {basic}", 401), ("Authorization: {token}", 401),
    ("Authorization: Bearer {token}x", 403), ("Authorization: Bearer {token} x", 403),
    ("Authorization: Bearer {upper}", 403), ("Authorization: Bearer \xff\xfe", 403),
    ("Authorization: Bearer " + "a" * 10_000, 403), ("Authorization: Bearer {token}\xe9", 403),
    ("Authorization: Digest username=x", 401), ("Authorization: Bearer {token},{token}", 403),
    ("Authorization: Token {token}", 401), ("Authorization: Bearer null", 403),
    ("Authorization: Bearer {token}\r\nAuthorization: Bearer x", 403),
    ("Authorization: Bearer x\r\nAuthorization: Bearer {token}", 403),
    ("Cookie: owner_token={token}", 401), ("X-Owner-Token: {token}", 401),
]  # fmt: skip


def test_wb_12_whoever_cannot_show_the_token_ends_nothing(server: Server) -> None:
    """Cancel, DELETE and the download that deletes, with every kind of Authorization."""
    with ran(server, python("open('x', 'w')")) as job:
        number, token = job["job_id"], job["owner_token"]
        words = {
            "token": token, "upper": token.swapcase(),
            "basic": base64.b64encode(f":{token}".encode()).decode(),
        }  # fmt: skip
        for header, status in BEARERS:
            headers = [header.format(**words)] if header else []
            for raw in (
                request("POST", f"/jobs/{number}/cancel", b"", *headers),
                request("DELETE", f"/jobs/{number}", None, *headers),
                request("GET", f"/download/{number}?delete=1", None, *headers),
            ):
                answer = exchange(server, raw)
                refused(answer, status, reason="not_owner")
                assert token.encode() not in answer
                assert ("www-authenticate" in parse(answer).headers) == (status == 401)
        for method, path in (("POST", "/jobs/x/cancel"), ("DELETE", "/jobs/x")):
            bearer = f"Authorization: Bearer {token}"
            refused(exchange(server, request(method, path, b"", bearer)), 404)
            refused(exchange(server, request(method, path.replace("x", number.upper()), b"")), 404)
        assert server.get(f"/status/{number}")["status"] == "completed"
        answer = parse(
            exchange(
                server,
                request(
                    "POST",
                    f"/jobs/{number}/cancel",
                    b"x" * 100_000,
                    f"Authorization: bEaReR   {token}",
                ),
            )
        )
        assert (answer.status, answer.json["status"]) == (200, "completed")  # fmt: skip


def test_wb_20_clients_that_leave_in_the_middle(server: Server) -> None:
    """WB-14, WB-20: of the head, of the body, of the answer, while a job runs."""
    upload = submission(file("big", bytes(2 * MIB)), MAIN_PART)
    with ran(server, python("print('x' * 9_000_000)")) as job:
        for _ in range(10):
            for raw in (
                b"", b"POST /sub", upload[:150], upload[: len(upload) // 2], upload[:-1],
                json_submission({"files": {"main.py": "x" * MIB}})[:-1000],
                request("GET", f"/logs/{job['job_id']}"),
                CHUNKED + b"100000\r\nx",
            ):  # fmt: skip
                with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
                    client.sendall(raw)


# --- RL: what it costs -------------------------------------------------------------------------


def test_rl_what_is_refused_costs_nothing(server: Server) -> None:
    """With the quotas of a new server, 20 jobs an hour: 25 refusals, from one address or said to be
    from others, and none is counted.
    """
    limited = Server()
    try:
        before = limited.get("/stats")["your_quota"]
        assert (before["jobs_left_this_hour"], before["enforced"]) == (20, True)
        for number in range(25):
            bad = (
                submission(MAIN_PART, asked(b"[" * 1000)),
                packed("tar.gz", GOOD_GZ[:-1]),
                packed("zip", GOOD_ZIP[:-1]),
                json_submission(b'{"files": {"../x": ""}}'),
                request("POST", "/run?timeout=0", b"1", f"X-Forwarded-For: 192.0.2.{number}"),
            )[number % 5]  # fmt: skip
            raw = exchange(limited, bad)
            refused(raw, 400)
        after = limited.get("/stats")["your_quota"]
        assert after == before
        assert limited.get("/stats")["system"]["active_jobs"] == 0
        with ran(
            limited, submission(MAIN_PART, asked({"timeout": 300}))
        ):  # MF-13: more than is left
            pass
        assert limited.get("/stats")["your_quota"]["jobs_left_this_hour"] == 19
    finally:
        assert limited.end() == 0
