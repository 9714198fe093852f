"""OC: what a job leaves, how it is collected, and how it is asked for. Nothing but the job's own
regular files is ever served."""

import hashlib
import http.client
import io
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.arena import Attacker, Seen
from tests.attacks.wire import MIB, download, each, hardened, refused, request, unpacked
from tests.journeys.server import eventually, memory_of, parse

pytestmark = pytest.mark.usefixtures("crowded")
FORMS = ("tar.gz", "zip")
ABSENT = "unknown_file"


def paths_of(seen: Seen) -> list[str]:
    """What of its outputs is listed, but for the canary."""
    paths = [output["path"] for output in seen.status["outputs"]]
    return sorted(path for path in paths if "CNRY" not in path)


def run(attacker: Attacker, code: str, *args: str, **options: Any) -> Seen:
    """A job that completed, with its outputs in its status."""
    job = attacker.start_python(code, *args, **options)
    seen = attacker.finish(job)
    assert (seen.reason, seen.code) == (None, 0), (seen.status, seen.stderr)
    return seen._replace(status=attacker.ask("GET", f"/status/{job}?wait=60").json)


def all_bytes(attacker: Attacker, seen: Seen) -> bytes:
    """Whatever of the job's outputs can be had in any way."""
    content = bytearray()
    for output in seen.status["outputs"]:
        content += attacker.ask("GET", output["download_url"]).body
    for form in FORMS:
        for name, body in unpacked(attacker, seen.id, form).items():
            content += name.encode(errors="surrogateescape") + body
    return bytes(content)


NOT_FILES = """
host, other = sys.argv[1:]
os.makedirs("out/closed/deep"); os.makedirs("folder.txt"); os.makedirs("a/b")
links = {
    "result.txt": "/etc/passwd", "environ": "/proc/self/environ", "up": "..", "root": "/",
    "other": "/proc/1/root/etc/shadow", "gone": "/nowhere", "loop": "loop", "self": "main.py",
    "out/etc": "/etc", "out/passwd": "/etc/passwd", "out/back": "../out", "out/all": "/",
    "marker": host, "marker-root": "/proc/1/root" + host, "marker-up": "../" * 20 + host,
    "job": "/proc/1/cwd", "tree": "/proc/self/fd", "neighbour": other, "a/b/c": "/",
    "ping": "pong", "pong": "ping", "magic": "/proc/self/exe", "memory": "/proc/1/mem",
}
for name, target in links.items():
    os.symlink(target, name)
os.mkfifo("pipe"); os.mkfifo("out/pipe")
socket.socket(socket.AF_UNIX).bind("sock")
refused = {
    "device": tried(os.mknod, "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    "hard link": tried(os.link, "/etc/passwd", "hard"),
    "hard link to a process": tried(os.link, "/proc/self/environ", "hard-environ"),
    "owner": tried(os.chown, "folder.txt", 0, 0),
}
for path in ("out/real", "out/closed/deep/file", "none"):
    open(path, "w").write(path)
os.chmod("none", 0); os.chmod("out/closed/deep", 0); os.chmod("out/closed", 0); os.chmod("out", 0)
open(".hidden", "w").write("hidden")
say([len(links), refused])
"""


@pytest.mark.parametrize(
    ("outputs", "kept"),
    [
        ([], [".hidden", "none", "out/closed/deep/file", "out/real"]),
        (["out/**"], ["out/closed/deep/file", "out/real"]),
        (["result.txt", "environ", "pipe", "sock", "folder.txt", "root/**", "loop", "up/*"], []),
        (["out/etc/passwd", "out/passwd", "self", "none", "a/b/c/**", "marker*", "ping"], ["none"]),
        (["~/*", "$HOME/*", "{a,b}", "[", "[!", "**/**/**/pipe", "tree/*", "job/**"], []),
    ],
)
def test_links_and_pipes_are_nobodys_outputs(
    attacker: Attacker, outputs: list[str], kept: list[str], marker: Path
) -> None:
    """OC-01, OC-02, OC-05, OC-12, OC-13, OC-14. Files of the job and nothing else, and only those
    that were asked for; not even by their names."""
    secret = marker.read_bytes()
    theirs = attacker.start(
        {"run.sh": b"echo theirs > out; sleep 1"}, interpreter="sh", entrypoint="run.sh"
    )
    seen = run(attacker, NOT_FILES, str(marker), f"/job/../{theirs}/out", outputs=outputs)
    count, errors = seen.said
    assert count == 23 and set(errors) == {"device", "hard link", "hard link to a process", "owner"}
    assert "ok" not in errors.values(), errors
    assert paths_of(seen) == kept
    listing = attacker.ask("GET", f"/outputs/{seen.id}")
    assert sorted(p for p in listing.json["files"] if "CNRY" not in p) == kept
    for path in kept:
        content = attacker.download(seen.id, path).decode()
        assert content == (path if path != ".hidden" else "hidden")
    absent = [
        "result.txt", "environ", "up/x", "root/etc/passwd", "other", "loop", "self", "pipe",
        "out/etc/passwd", "out/passwd", "out/back/real", "sock", "folder.txt", "main.py",
        "probe.py", "marker", "marker-root", "marker-up", f"root{marker}", f"out/all{marker}",
        "neighbour", "a/b/c/etc/passwd", "tree/0", "job/main.py", "ping", "magic", "memory", "hard",
        *({".hidden", "out/real", "none"} - set(kept)),
    ]  # fmt: skip

    def check(path: str) -> None:
        refused(download(attacker, seen.id, path), 404, reason=ABSENT)

    each([(path, path) for path in absent], check)
    for form in FORMS:
        assert sorted(n for n in unpacked(attacker, seen.id, form) if "CNRY" not in n) == kept
    served = all_bytes(attacker, seen) + listing.body
    for word in (secret, b"root:x:", b"theirs", b"PATH="):
        assert word not in served, word


OUTPUT_NAMES = [
    b'a"b', b"a'b", b"a\r\nX-Injected: x=1", b"a\r\nSet-Cookie: x=1", b"a\nb", "ü".encode(),
    b"\xff\xfe", b"a\xe9b", "\u202efdp.exe".encode(), b"n" * 255, b" ", b"...", b"%2e%2e%2f",
    b"%00", b"a%0d%0ab", b"<img src=x onerror=alert(1)>", b"a;b", b"-", b"--", b"a?b", b"a#b",
    b"a+b c", b"a\\b", b"\x01\x1b[31m", b"\x7f", b"C:x", b"a&b=c", b"~", b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80", b"d/e/f", b"d/ /f", b"d/%2f/f", b"d;x/f", b"..\\x", b"\\\\srv\\x", b"x/..x/f",
]  # fmt: skip


def test_any_name_is_listed_and_can_be_fetched(attacker: Attacker) -> None:
    """OC-09, OC-16, OC-17. The URL in the listing leads to the very file, for HEAD too; headers are
    ASCII; archives hold the names, and none that leads out of where they are unpacked."""
    code = f"""
for name in {OUTPUT_NAMES!r}:
    os.makedirs(os.path.dirname(b"./" + name), exist_ok=True)
    open(name, "wb").write(name)
    os.chmod(name, 0o6755)
"""
    seen = run(attacker, code)
    answer = attacker.ask("GET", f"/outputs/{seen.id}")
    assert answer.body.isascii() or answer.body.decode()
    listing = answer.json
    assert len(listing["outputs"]) == len(OUTPUT_NAMES) == len(set(listing["files"]))
    assert set(seen.status["output_files"]) == set(listing["files"])
    got = set()

    def check(output: dict[str, Any]) -> None:
        raw = attacker.exchange(request("GET", output["download_url"]))
        answer = parse(raw)
        assert answer.status == 200
        hardened(answer)
        assert answer.headers["content-disposition"].startswith("attachment; filename=")
        assert re.fullmatch(
            r"attachment; filename=\"[A-Za-z0-9._ -]*\"; filename\*=UTF-8''[A-Za-z0-9._~%-]*",
            answer.headers["content-disposition"],
        ), answer.headers
        assert raw.partition(b"\r\n\r\n")[0].isascii()
        assert hashlib.sha256(answer.body).hexdigest() == output["sha256"]
        assert output["size"] == len(answer.body) == int(answer.headers["content-length"])
        got.add(answer.body)
        head = attacker.answer(request("HEAD", output["download_url"]))
        assert head.headers == answer.headers and head.body == b"", head

    each([(output["path"], output) for output in listing["outputs"]], check)
    assert got == set(OUTPUT_NAMES)
    names = unpacked(attacker, seen.id, "tar.gz")
    assert {os.fsencode(name) for name in names} == got == set(names.values())
    zipped = unpacked(attacker, seen.id, "zip")
    assert set(zipped.values()) == got
    assert not [name for name in zipped if "\\" in name]


def test_outputs_in_an_archive_are_small_plain_and_made_while_they_are_read(
    attacker: Attacker,
) -> None:
    """OC-16. 90 MB that do not compress, beside links, a pipe and a setuid program: the server does
    not grow by them, and nobody owns the members."""
    code = """
block = os.urandom(1 << 20)
with open("big", "wb") as file:
    for _ in range(90):
        file.write(block)
open("setuid", "w").write("x"); os.chmod("setuid", 0o6755)
os.symlink("/etc/passwd", "link"); os.mkfifo("pipe"); os.makedirs("d"); open("d/f", "w").write("f")
"""
    seen = run(attacker, code, memory_mb=300)
    web = attacker.server.pids()["web"]
    before = memory_of(web).rss
    most = 0
    for form in FORMS:
        with reading(attacker, f"/download/{seen.id}?format={form}") as (answer, pieces):
            assert answer.status == 200
            hardened(answer)
            content = bytearray()
            for number, piece in enumerate(pieces):
                content += piece
                if number % 50 == 0:
                    most = max(most, memory_of(web).rss - before)
        kept = {"big": 90 * MIB, "setuid": 1, "d/f": 1}
        buffer = io.BytesIO(content)
        if form == "zip":
            with zipfile.ZipFile(buffer) as opened:
                assert opened.testzip() is None
                members = opened.infolist()
                assert {info.filename: info.file_size for info in members} == kept
                modes = [info.external_attr >> 16 for info in members]
                assert all(map(stat.S_ISREG, modes))
                assert {stat.S_IMODE(mode) for mode in modes} == {0o644, 0o755}
        else:
            with tarfile.open(fileobj=buffer) as tar:
                infos = tar.getmembers()
                assert {info.name: info.size for info in infos} == kept
                assert all(info.isreg() for info in infos)
                assert {info.mode for info in infos} == {0o644, 0o755}
                assert {(i.uid, i.gid, i.uname, i.gname) for i in infos} == {(0, 0, "", "")}
    assert most < 32 * MIB, f"the server grew by {most / MIB:.1f} MB"
    attacker.delete(seen.id)
    assert eventually(lambda: memory_of(web).memfds < MIB, 5)


@contextmanager
def reading(attacker: Attacker, target: str) -> Iterator[tuple[Any, Iterator[bytes]]]:
    """The head of an answer, and its body piece by piece as we come to ask for it: it fails unless
    the body has the length or the end that was promised."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", attacker.server.port, 120, source_address=(attacker.address, 0)
    )
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}

        def pieces() -> Iterator[bytes]:
            while piece := answer.read(65_536):
                yield piece

        yield parse(b"HTTP/1.1 %d x\r\n\r\n" % answer.status)._replace(headers=fields), pieces()
    finally:
        connection.close()


FLIP = """
EXCHANGE, AT_FDCWD = 2, -100
def flip(one, other):
    return call(316, AT_FDCWD, one, AT_FDCWD, other, EXCHANGE)
host = sys.argv[1]
open("a", "w").write("real"); os.symlink(host, "b")
os.makedirs("x/d"); open("x/d/f", "w").write("real"); os.symlink("/", "y")
for path in ("z/etc/passwd", "z" + host):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").write("real")
counted, tell = os.pipe()
def rounds(say_so):
    answers, number = set(), 0
    while True:
        answers |= {flip(b"a", b"b"), flip(b"x", b"y"), flip(b"y", b"z")}
        number += 1
        if number == 10_000 and say_so:
            os.write(tell, json.dumps(sorted(answers)).encode() + b"\\n")
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        for fd in (1, 2): os.close(fd)
        threading.Thread(target=rounds, args=(False,), daemon=True).start()
        rounds(True)
print(os.read(counted, 1000).decode().splitlines()[0])
"""


def test_files_that_flip_while_they_are_collected_are_the_jobs_own(
    attacker: Attacker, marker: Path
) -> None:
    """OC-03. Three survivors with two threads each exchange files, folders and links to the host
    for 10,000 rounds, and until they are killed; only then is anything collected."""
    secret = marker.read_bytes()
    for _ in range(2):
        seen = run(attacker, FLIP, str(marker), timeout=120)
        assert "ok" in seen.said, "renameat2 was never done"
        assert 1 <= len(paths_of(seen)) <= 4, seen.status
        for output in seen.status["outputs"]:
            body = attacker.ask("GET", output["download_url"]).body
            assert body == b"real", (output, body)
            assert hashlib.sha256(body).hexdigest() == output["sha256"]
        served = all_bytes(attacker, seen)
        assert secret not in served and b"root:x:" not in served


def test_what_is_written_after_the_end_is_no_output(attacker: Attacker) -> None:
    """OC-22. Whoever outlives the program is dead before anything is collected: neither what it
    writes later, nor what it still writes, while a hundred files are collected, is in there."""
    code = """
for n in range(100):
    open(f"f{n}", "wb").write(bytes(200_000))
ready, tell = os.pipe()
for number in range(3):
    if os.fork() == 0:
        os.setsid()
        program = os.getppid()
        os.write(tell, b"x")
        while os.getppid() == program:
            time.sleep(0.001)
        time.sleep(0.15)  # nobody can tell what is written in the moment of the end itself
        while True:
            open(f"late{number}", "a").write("late")
            for n in range(100):
                open(f"f{n}", "ab").write(b"late")
print(len(os.read(ready, 1) + os.read(ready, 1) + os.read(ready, 1)))
"""
    seen = run(attacker, code)
    assert seen.text == "3\n"
    assert paths_of(seen) == sorted(f"f{n}" for n in range(100))
    assert {output["size"] for output in seen.status["outputs"]} == {200_000}


def test_too_many_and_too_deep_outputs_are_left_out_and_said(attacker: Attacker) -> None:
    """OC-07. As many files and folders as there can be, and as deep; /health answers (HI1), and the
    collector is done in time."""
    code = """
made = dict(files=0, folders=0)
try:
    for made["files"] in range(int(sys.argv[1])):
        os.close(os.open(f"f{made['files']}", os.O_CREAT | os.O_WRONLY))
    for depth in range(int(sys.argv[2])):
        os.mkdir("d"); os.chdir("d")
    open("deepest", "w").write("x")
    os.chdir("/job"); os.mkdir("many")
    for made["folders"] in range(int(sys.argv[3])):
        os.mkdir(f"many/{made['folders']}")
except OSError as error:
    made["errno"] = errno.errorcode[error.errno]
say(made)
"""
    seen = run(attacker, code, "10050", "1000", "0")
    listing = attacker.ask("GET", f"/outputs/{seen.id}").json
    assert (listing["total_files"], listing["truncated"]) == (10_000, True)
    refused(download(attacker, seen.id, "d/" * 1000 + "deepest"), 404)
    attacker.delete(seen.id)
    seen = run(attacker, code, "1000000", "0", "0", timeout=120)  # until there is no place for more
    assert seen.said["files"] > 10_000 and seen.said["errno"] in ("ENOSPC", "ENOMEM"), seen.said
    listing = attacker.ask("GET", f"/outputs/{seen.id}").json
    assert (listing["total_files"], listing["truncated"]) == (10_000, True)
    attacker.delete(seen.id)
    seen = run(attacker, code, "0", "5000", "100000", timeout=120)
    assert seen.said["folders"] > 5_000 and seen.said["errno"] in ("ENOSPC", "ENOMEM"), seen.said
    listing = attacker.ask("GET", f"/outputs/{seen.id}").json
    assert (listing["total_files"], listing["truncated"]) == (0, True)


def test_a_path_of_a_download_that_is_no_name_is_not_found(
    attacker: Attacker, marker: Path
) -> None:
    """OC-10. It is looked up in the list of what was collected, as the bytes that it is."""
    seen = run(attacker, "open('out', 'w').write('x')")
    host = str(marker)
    paths = [
        "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc%2fpasswd",
        "%252e%252e%252fetc%252fpasswd", "..%5c..%5cetc", "/etc/passwd", "//etc/passwd",
        "%2Fetc%2Fpasswd", "%00", "out%00", "out%00.txt", ".%00.", "out/", "out/.", "./out",
        "x/../out", "out%20", "OUT", "%6fut/", "%", "%zz", "%u002e", "%c0%ae%c0%ae/etc/passwd",
        "%ff", "out;x", "out%23", "a" * 15_000, "a/" * 7000, "%0d%0aX-Injected:%20x", "*",
        "proc/self/environ", "main.py", "%F0%9F%98%80", "out%2500", host, f"/{host}",
        "../" * 20 + host[1:], "%2e%2e%2f" * 20 + host[1:], host.replace("/", "%2f"),
        "..%252f" * 9 + host[1:], f"file://{host}", "..;/" * 9 + host[1:], f".%00.{host}",
    ]  # fmt: skip

    def check(path: str) -> None:
        raw = download(attacker, seen.id, path)
        assert refused(raw, 404)["reason"] in (ABSENT, "unknown_path")
        assert marker.read_bytes() not in raw and b"root:x:" not in raw

    each([(path[:60], path) for path in paths], check)
    assert attacker.download(seen.id, "out") == attacker.download(seen.id, "%6f%75t") == b"x"
    refused(download(attacker, seen.id, "a" * 17_000), 414, reason="too_large")


def test_a_range_is_a_part_of_the_file_and_nothing_else(attacker: Attacker) -> None:
    """OC-17. One range within the file is that part; behind its end is none; of many, of none, or
    for another version the whole comes, once."""
    seen = run(attacker, "open('a', 'w').write('before'); open('out', 'w').write('0123456789')")
    target = f"/download/{seen.id}/out"
    many = "bytes=" + ",".join(f"{n}-" for n in range(1000))
    for value in ("bytes=9-1", many, "bytes=", "lines=1", "x", "bytes=0-0,-1", "bytes=-1-2"):
        answer = attacker.answer(request("GET", target, None, f"Range: {value}"))
        assert (answer.status, answer.body) == (200, b"0123456789"), value
        assert "content-range" not in answer.headers
    for value in ("bytes=0-0", "bytes=-5", "bytes=100-"):
        answer = attacker.answer(request("GET", target, None, f"Range: {value}", 'If-Range: "x"'))
        assert (answer.status, answer.body) == (200, b"0123456789"), value
    for value, part in (("0-0", b"0"), ("-5", b"56789"), ("-500", b"0123456789"), ("8-99", b"89")):
        answer = attacker.answer(request("GET", target, None, f"Range: bytes={value}"))
        assert (answer.status, answer.body) == (206, part), value
        hardened(answer)
    for value in ("100-", "10-10", "-0", "9" * 18 + "-"):
        raw = attacker.exchange(request("GET", target, None, f"Range: bytes={value}"))
        refused(raw, 416, reason="invalid_range")


def test_a_download_deletes_nothing_and_outlives_its_job(attacker: Attacker) -> None:
    """OC-19, OC-20. A fetch, a HEAD, a prefetch and one that is broken off delete nothing. DELETE
    does: a download that runs then breaks off, and does not seem to be whole. At the end of the
    time to live it comes to its end."""
    size = 30 * MIB
    code = f"open('out', 'wb').write(bytes({size}))"
    seen = run(attacker, code)
    target = f"/download/{seen.id}/out"
    for method in ("HEAD", "GET"):
        assert attacker.ask(method, target).headers["content-length"] == str(size)
    for path in (target, f"/download/{seen.id}", f"/download/{seen.id}?format=zip"):
        for _ in range(3):
            with attacker.connect() as client:
                client.sendall(request("GET", path))
                client.recv(1000)
    for header in ({"Purpose": "prefetch", "Sec-Purpose": "prefetch"}, {"X-Moz": "prefetch"}, {}):
        assert len(attacker.ask("GET", target, b"", header).body) == size
        assert attacker.ask("GET", f"/download/{seen.id}", b"", header).status == 200
    refused(attacker.exchange(request("GET", f"/download/{seen.id}?delete=1")), 401)
    assert attacker.ask("HEAD", f"/download/{seen.id}?delete=1").status == 401
    assert len(attacker.download(seen.id, "out")) == size
    with reading(attacker, target) as (answer, pieces):
        assert answer.headers["content-length"] == str(size)
        next(pieces)
        attacker.delete(seen.id)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            list(pieces)
    refused(attacker.exchange(request("GET", target)), 404, reason="unknown_job")

    seen = run(attacker, code, ttl=1)
    with reading(attacker, f"/download/{seen.id}/out") as (answer, pieces):
        received = len(next(pieces))
        assert eventually(lambda: attacker.ask("GET", f"/status/{seen.id}").status == 404, 20)
        received += sum(map(len, pieces))
    assert received == size
    web = attacker.server.pids()["web"]
    assert eventually(lambda: memory_of(web).memfds < MIB, 5), "what was read is still held"


def test_a_download_that_is_broken_off_keeps_no_memory(attacker: Attacker) -> None:
    """OC-19. Somebody begins to fetch and leaves; then the job is deleted."""
    seen = run(attacker, f"open('out', 'wb').write(os.urandom({20 * MIB}))")
    for target in (f"/download/{seen.id}/out", f"/download/{seen.id}"):
        with attacker.connect() as client:
            client.sendall(request("GET", target))
            head = client.recv(65_536)
        assert b" 200 OK" in head
        assert b"content-length: " in head.lower() or b"chunked" in head.lower(), head[:500]
    attacker.delete(seen.id)
    web = attacker.server.pids()["web"]
    assert eventually(lambda: memory_of(web).memfds < MIB, 5)


def test_files_without_a_byte_and_as_large_as_can_be_are_said_exactly(attacker: Attacker) -> None:
    """OC-23. Nothing, one byte, all of the disk, and a byte more, which the job is refused; size,
    digest and flag are right."""
    seen = run(attacker, "open('empty', 'w'); open('one', 'w').write('1')")
    listed = [(out["path"], out["size"], out["sha256"]) for out in seen.status["outputs"]]
    digests = [hashlib.sha256(content).hexdigest() for content in (b"", b"1")]
    assert listed == [("empty", 0, digests[0]), ("one", 1, digests[1])]
    answer = attacker.ask("GET", f"/download/{seen.id}/empty")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
    code = """
size, answers = 0, []
with open("big", "wb", buffering=0) as file:
    try:
        while True:
            size += file.write(bytes(4096))
    except OSError as error:
        answers.append(errno.errorcode[error.errno])
answers.append(tried(os.truncate, "big", 1 << 40))
say([size, answers])
"""
    seen = run(attacker, code, memory_mb=300)
    size, answers = seen.said
    assert 99 * MIB <= size <= 100 * MIB and answers == ["ENOSPC", "EFBIG"], (size, answers)
    (output,) = seen.status["outputs"]
    content = attacker.download(seen.id, "big")
    assert output["size"] == len(content) == size
    assert output["sha256"] == hashlib.sha256(bytes(size)).hexdigest()
    assert "disk" in seen.status["limits_hit"], seen.status
    assert attacker.ask("GET", f"/outputs/{seen.id}").json["truncated"] is False
    attacker.delete(seen.id)
    # A hole takes no place: exactly as large as may be collected, and two that are more together.
    sparse = "for name in sys.argv[2:]: open(name, 'w').truncate(int(sys.argv[1]))"
    for names, kept, truncated in ((["a"], ["a"], False), (["a", "b"], ["a"], True)):
        seen = run(attacker, sparse, str(100 * MIB), *names)
        listing = attacker.ask("GET", f"/outputs/{seen.id}").json
        assert (listing["files"], listing["truncated"]) == (kept, truncated)
        assert listing["outputs"][0]["size"] == 100 * MIB
        attacker.delete(seen.id)
    past = "say(tried(os.truncate, os.open('a', os.O_CREAT | os.O_RDWR), int(sys.argv[1])))"
    assert run(attacker, past, str(100 * MIB + 1)).said == "EFBIG"
