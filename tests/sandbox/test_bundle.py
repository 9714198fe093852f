"""What people upload: archives that are read by inspect and unpacked in the job's own sandbox.

The bytes are hostile. Either there is an Inspection, or one sentence (BundleRefused) and nothing
is left; a SandboxError, which blames us, is always a failure of the test.
"""

import asyncio
import gzip
import hashlib
import json
import os
import random
import re
import shutil
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any, NamedTuple

import pytest

from sandbox import channel
from sandbox.errors import BundleRefused
from sandbox.members import MAX_DEPTH, MAX_MEMBERS, MAX_PATH_BYTES
from sandbox.model import MIB, Bundle, Command, Inspection, Member
from sandbox.runtimes import BASE_ENV
from sandbox.unpack import MAX_JOB_JSON
from sandbox.unzip import _unix_time
from tests.sandbox.box import Box, Ran, tarred

END = bytes(1024)


def info(name: str, **fields: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def paths(inspection: Inspection) -> list[str]:
    return [member.path for member in inspection.members]


def run(box: Box, archive: bytes, *argv: str, members: tuple[Member, ...] = ()) -> Ran:
    """Run a command over an archive as it was uploaded."""
    bundle = Bundle("archive", channel.memfd("upload", archive), members)
    return box.wait(box.arun(Command((argv,), BASE_ENV), bundle=bundle))


def refused(box: Box, archive: bytes) -> str:
    """The sentence; refused by inspect and by a run alike, in time, and the launcher is well."""
    started = time.monotonic()
    with pytest.raises(BundleRefused) as first:
        box.inspect(archive)
    assert time.monotonic() - started < 3
    sentence = str(first.value)
    assert sentence.endswith(".") and sentence.isprintable() and len(sentence) < 300
    assert box.sh("echo well").text == "well\n"
    return sentence


# --- good archives ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_folders_modes_and_times_are_read(box: Box, mode: str, form: int) -> None:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as tar:  # type: ignore[call-overload]
        for member, content in (
            (info("./", type=tarfile.DIRTYPE, mode=0o755), b""),
            (info("./main.py", mode=0o644, mtime=1_700_000_000), b"print(42)"),
            (info("./tool", mode=0o755, mtime=12), b"#!/bin/sh\n"),
            (info("data", type=tarfile.DIRTYPE, mode=0o755), b""),
            (info("data//deep/./er/x.csv", mode=0o600), b"1,2\n" * 5000),
            (info("empty"), b""),
        ):
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    inspection = box.inspect(buffer.getvalue())
    assert inspection.job_json is None
    assert [member[:4] for member in inspection.members] == [
        ("main.py", 9, 1_700_000_000 * 10**9, 0o644),
        ("tool", 10, 12 * 10**9, 0o755),
        ("data/deep/er/x.csv", 20_000, 0, 0o644),
        ("empty", 0, 0, 0o644),
    ]
    assert [member.sha256 for member in inspection.members] == [
        hashlib.sha256(content).hexdigest()
        for content in (b"print(42)", b"#!/bin/sh\n", b"1,2\n" * 5000, b"")
    ]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_unicode_names_are_read(box: Box, form: int) -> None:
    names = ["ü/日本語.txt", "name\nwith\x1b[31mescapes", "‮gpj.exe", " leading", "-rf", "x" * 255,
             "/".join(["long-folder-name"] * 50) + "/file", "~root", "trailing."]  # fmt: skip
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as tar:
        for name in names:
            tar.addfile(info(name))
    assert len(names[6]) > 100  # neither ustar field holds it
    assert paths(box.inspect(buffer.getvalue())) == names


def test_a_name_that_is_no_utf8_comes_back_as_it_was(box: Box) -> None:
    raw = info("\udcff\udcfe.bin").tobuf(tarfile.GNU_FORMAT) + END
    (member,) = box.inspect(raw).members
    assert os.fsencode(member.path) == b"\xff\xfe.bin"
    out = run(box, raw, "sh", "-c", "ls | od -An -tx1").text
    assert out.split()[:2] == ["ff", "fe"]


def test_an_archive_as_gnu_tar_writes_it(box: Box, tmp_path: Any) -> None:
    (tmp_path / "src" / "pkg").mkdir(parents=True)
    (tmp_path / "src" / "pkg" / "a.py").write_text("1")
    (tmp_path / "src" / "run.sh").write_text("2")
    (tmp_path / "src" / "run.sh").chmod(0o775)
    os.system(f"tar -C {tmp_path}/src -czf {tmp_path}/x.tgz .")
    members = {m.path: m.mode for m in box.inspect((tmp_path / "x.tgz").read_bytes()).members}
    assert members == {"pkg/a.py": 0o644, "run.sh": 0o755}


def test_a_gzip_of_several_parts_is_one_archive(box: Box) -> None:
    plain = tarred(("a", b"1" * 1000), ("b", b"2"), mode="w")
    assert paths(box.inspect(gzip.compress(plain[:700]) + gzip.compress(plain[700:]))) == ["a", "b"]


def test_ten_thousand_members_are_allowed(box: Box) -> None:
    inspection = box.inspect(gzip.compress(empty_files(MAX_MEMBERS) + END, 1))
    assert len(inspection.members) == MAX_MEMBERS


def test_as_deep_and_as_long_as_allowed(box: Box) -> None:
    deep = "/".join("d" for _ in range(MAX_DEPTH - 1)) + "/f"
    long = "/".join(["n" * 255] * 4)[:MAX_PATH_BYTES]
    assert paths(box.inspect(tarred((deep, b""), (long, b"")))) == [deep, long]


def test_modes_and_owners_of_the_archive_are_not_taken_over(box: Box) -> None:
    archive = tarred(
        (info("setuid", mode=0o4755, uid=0, gid=0, uname="root"), b""),
        (info("setgid", mode=0o2755, uid=2**21 - 1), b""),
        (info("open", mode=0o777), b""),
        (info("closed", mode=0, gname="docker"), b""),
    )
    modes = {m.path: m.mode for m in box.inspect(archive).members}
    assert modes == {"setuid": 0o755, "setgid": 0o755, "open": 0o755, "closed": 0o644}
    shown = run(box, archive, "stat", "-c", "%a %u %g %n", *modes).text.split("\n")
    assert shown[:4] == ["755 1000 1000 setuid", "755 1000 1000 setgid",
                         "755 1000 1000 open", "644 1000 1000 closed"]  # fmt: skip


def test_extended_attributes_of_the_archive_are_not_taken_over(box: Box) -> None:
    headers = {"SCHILY.xattr.security.capability": "x" * 20, "SCHILY.acl.access": "user::rwx",
               "LIBARCHIVE.xattr.user.x": "eA==", "RHT.security.selinux": "system_u"}  # fmt: skip
    archive = tarred((info("f", pax_headers=headers), b"1"))
    assert paths(box.inspect(archive)) == ["f"]
    code = "import os; print(os.listxattr('f'))"
    assert run(box, archive, "python3", "-c", code).text == "[]\n"


# --- what inspect says is what unpack writes -------------------------------------------------

LISTING = """
import hashlib, json, os
found = []
for folder, _, names in os.walk("."):
    for name in names:
        path = os.path.join(folder, name)
        status = os.lstat(path)
        digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
        mode = status.st_mode & 0o7777
        found.append([path[2:], status.st_size, status.st_mtime_ns, mode, digest])
print(json.dumps(sorted(found)))
"""


@pytest.mark.core
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_what_was_inspected_is_what_is_unpacked(box: Box, mode: str) -> None:
    noise = random.Random(1)
    archive = tarred(
        ("./main.py", b"x"),
        (info("bin/tool", mode=0o755, mtime=1_234_567_890), noise.randbytes(3_000_000)),
        (info("future", mtime=2**33 + 5), b"clamped"),
        (info("past", mtime=-5, pax_headers={"mtime": "-5.5"}), b"clamped too"),
        (info("fraction", pax_headers={"mtime": "1234.987654321"}), b""),
        (info("ü/\udcff\n", mode=0o711), b"1"),
        (info("folder/only", type=tarfile.DIRTYPE), b""),
        ("z" * 200 + "/" + "y" * 250, b"2"),
        mode=mode,
    )
    inspection = box.inspect(archive)
    ran = run(box, archive, "python3", "-c", LISTING, members=inspection.members)
    assert json.loads(ran.text) == sorted(map(list, inspection.members))
    assert ran.files == {}  # and so nothing of it counts as made by the job


def test_loose_files_are_unpacked_alike(box: Box) -> None:
    files = {"a.txt": b"1", "deep/er/b.bin": random.Random(2).randbytes(2_500_000), "empty": b""}
    ran = box.wait(box.arun(Command((("python3", "-c", LISTING),), BASE_ENV), files=files))
    assert [(row[0], row[1], row[4]) for row in json.loads(ran.text)] == [
        (path, len(data), hashlib.sha256(data).hexdigest()) for path, data in sorted(files.items())
    ]


def test_loose_files_that_say_more_than_they_are_are_refused(box: Box) -> None:
    members = (Member("a", 10, 0, 0o644, ""), Member("b", 10, 0, 0o644, ""))
    bundle = Bundle("loose", channel.memfd("bundle", b"x" * 15), members)
    with pytest.raises(BundleRefused, match="shorter than it says"):
        box.wait(box.arun(Command((("true",),), BASE_ENV), bundle=bundle))


@pytest.mark.core
def test_an_archive_larger_than_the_disk_is_refused_and_nothing_runs(box: Box) -> None:
    archive = tarred(("a", bytes(MIB)), ("b", bytes(MIB)), ("c", bytes(MIB)))
    bundle = Bundle("archive", channel.memfd("upload", archive), ())
    said: list[str] = []
    with pytest.raises(BundleRefused, match="No space left on device"):
        box.wait(
            box.arun(
                Command((("echo", "ran"),), BASE_ENV),
                bundle=bundle,
                disk_bytes=2 * MIB,
                on_output=lambda stream, data: said.append(stream),
            )  # fmt: skip
        )
    assert said == []


NAMES = ["stdout", "stderr", "stdin", "run", "script.sh", ".sandrun", "upload.tar.gz", "outputs",
         "job/main.py", "tmp/x", "shm/x", "proc/self/mem", "etc/passwd", "main.py/inner",
         "sitecustomize.txt", "job.json"]  # fmt: skip


def test_names_that_a_runner_could_use_are_only_names(box: Box) -> None:
    archive = tarred(*((name, b"{}") for name in NAMES))
    inspection = box.inspect(archive)
    assert paths(inspection) == NAMES and inspection.job_json == b"{}"
    ran = run(box, archive, "sh", "-c", "find . -type f | sort; cat stdout main.py/inner; ls /tmp",
              members=inspection.members)  # fmt: skip
    assert ran.text == "".join(f"./{name}\n" for name in sorted(NAMES)) + "{}{}"
    assert ran.stderr == b"" and ran.code == 0 and ran.files == {}


def test_an_entrypoint_that_is_a_folder_is_the_programs_failure(box: Box) -> None:
    ran = run(box, tarred(("main.py/inner", b"")), "./main.py")
    assert (ran.reason, ran.code) == ("exit", 126)


# --- job.json --------------------------------------------------------------------------------


def test_job_json_comes_back_byte_for_byte(box: Box) -> None:
    content = bytes(range(256)) * 4
    assert box.inspect(tarred(("x", b""), ("./job.json", content))).job_json == content


def test_job_json_of_the_largest_size_comes_back(box: Box) -> None:
    content = b"\xff" * MAX_JOB_JSON
    assert box.inspect(tarred(("job.json", content))).job_json == content


@pytest.mark.parametrize("size", [MAX_JOB_JSON + 1, 90 * MIB])
def test_a_large_job_json_is_refused(box: Box, size: int) -> None:
    assert "job.json" in refused(box, tarred(("job.json", bytes(size))))


def test_only_the_job_json_at_the_top_counts(box: Box) -> None:
    archive = tarred(("a/job.json", b"{}"), ("JOB.JSON", b"{}"), ("job.json.bak", b"{}"))
    assert box.inspect(archive).job_json is None


def test_an_empty_job_json_is_there(box: Box) -> None:
    assert box.inspect(tarred(("job.json", b""))).job_json == b""


# --- refusals: places, kinds, duplicates -----------------------------------------------------

ONE = ("ok", b"1")
PLACES: dict[str, str] = {
    "../x": "leads out", "a/../../x": "leads out", "..": "leads out", "./../x": "leads out",
    "a/..": "leads out", "a/b/../c": "leads out",
    "/etc/x": "relative", "//x": "relative", "/": "relative", "/proc/self/cwd/x": "relative",
    "C:\\x": "relative", "C:/x": "relative", "c:x": "relative", "\\\\srv\\x": "relative",
    "a\\..\\..\\x": "relative", "./C:/x": "relative",
    "": "no name", ".": "no name", "./": "no name", "./.": "no name",
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_a_name_that_leads_elsewhere_is_refused(box: Box, name: str) -> None:
    # The header by hand: tarfile would mend some of these names.
    header = info("x").tobuf(tarfile.GNU_FORMAT)
    archive = with_checksum(name.encode().ljust(100, b"\0") + header[100:]) + END
    assert PLACES[name] in refused(box, tarred(ONE, mode="w")[:1024] + archive)


def test_a_nul_in_a_pax_path_is_refused(box: Box) -> None:
    archive = tarred((info("x", pax_headers={"path": "a\0b"}), b""), mode="w")
    assert "relative" in refused(box, archive)


@pytest.mark.core
@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "ok", "/", ".", "dangling", "link"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_refused(box: Box, kind: bytes, target: str) -> None:
    archive = tarred(ONE, (info("link", type=kind, linkname=target), b""), ("link/x", b""))
    assert "link" in refused(box, archive)


KINDS = {
    "character device": tarfile.CHRTYPE, "block device": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE, "contiguous": tarfile.CONTTYPE, "gnu sparse": tarfile.GNUTYPE_SPARSE,
    "volume": b"V", "directory dump": b"D", "multi volume": b"M", "unknown": b"Z", "high": b"\xff",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_neither_file_nor_folder_is_refused(box: Box, kind: str) -> None:
    header = with_type(info("thing").tobuf(tarfile.GNU_FORMAT), KINDS[kind])
    archive = tarred(ONE, mode="w")[:1024] + header + END
    assert "neither" in refused(box, archive)
    with pytest.raises(BundleRefused):
        run(box, archive, "true")


SPARSE = {
    "0.0": {"GNU.sparse.size": "99999999", "GNU.sparse.numblocks": "1", "GNU.sparse.offset": "0",
            "GNU.sparse.numbytes": "3"},
    "0.1": {"GNU.sparse.size": "99999999", "GNU.sparse.map": "0,3"},
    "1.0": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999"},
}  # fmt: skip


@pytest.mark.parametrize("version", SPARSE)
def test_sparse_files_of_pax_are_refused(box: Box, version: str) -> None:
    # 99 MB for 3 bytes of archive: the holes never pass through the capped stream.
    content = b"1\n0\n3\n".ljust(512, b"\0") + b"abc" if version == "1.0" else b"abc"
    headers = {**SPARSE[version], "GNU.sparse.name": "hole"}
    archive = tarred((info("hole", pax_headers=headers), content))
    assert "hole" in refused(box, archive)


FOLDER = {"type": tarfile.DIRTYPE, "mode": 0o755}
TWICE: dict[str, list[tarfile.TarInfo]] = {
    "same name": [info("x"), info("x")],
    "dot slash": [info("x"), info("./x")],
    "double slash": [info("a/x"), info("a//x")],
    "file then folder": [info("x"), info("x", **FOLDER)],
    "folder then file": [info("x", **FOLDER), info("x")],
    "file then below": [info("x"), info("x/y")],
    "file then far below": [info("x"), info("x/y/z")],
    "file then folder below": [info("x"), info("x/y", **FOLDER)],
    "below then file": [info("x/y/z"), info("x/y")],
    "file then link": [info("x"), info("x", type=tarfile.SYMTYPE, linkname="/etc")],
}


@pytest.mark.parametrize("case", TWICE)
def test_two_members_at_one_place_are_refused(box: Box, case: str) -> None:
    archive = tarred(*((member, b"") for member in TWICE[case]))
    assert refused(box, archive)
    with pytest.raises(BundleRefused):
        run(box, archive, "true")


def test_a_folder_may_be_named_twice_and_after_its_files(box: Box) -> None:
    archive = tarred(("a/b", b""), (info("a", **FOLDER), b""), (info("./a/", **FOLDER), b""))
    assert paths(box.inspect(archive)) == ["a/b"]
    assert run(box, archive, "ls").text == "a\n"


def test_names_that_differ_in_case_or_normal_form_are_two_files(box: Box) -> None:
    names = ["A", "a", "\u00e9", "e\u0301"]
    archive = tarred(*((name, b"") for name in names))
    assert paths(box.inspect(archive)) == names
    assert len(run(box, archive, "ls", "-1").text.splitlines()) == 4


# --- refusals: too much ----------------------------------------------------------------------


def with_checksum(header: bytes) -> bytes:
    """A tar header with its checksum computed anew."""
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def with_type(header: bytes, kind: bytes) -> bytes:
    return with_checksum(header[:156] + kind + header[157:])


def with_size(header: bytes, size: int) -> bytes:
    return with_checksum(header[:124] + b"%011o\0" % size + header[136:])


def empty_files(count: int) -> bytes:
    """Headers of so many empty files, fast."""
    header = info("0" * 8).tobuf(tarfile.GNU_FORMAT)
    base = sum(header[:148]) + sum(header[156:]) + 8 * 32 - 8 * 48
    made = bytearray()
    for number in range(count):
        name = b"%08d" % number
        made += name + header[8:148] + b"%06o\0 " % (base + sum(name)) + header[156:]
    return bytes(made)


def zeros(gigabytes: float) -> bytes:
    """Gzip parts of so much nothing."""
    return gzip.compress(bytes(16 * MIB), 9) * int(gigabytes * 64)


def header_of(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    return with_type(with_size(info(name).tobuf(tarfile.GNU_FORMAT), size), kind)


def gz(data: bytes) -> bytes:
    return gzip.compress(data, 1)


BOMBS: dict[str, Callable[[], bytes]] = {
    "one file of zeros": lambda: gz(header_of("zeros", 1 << 30)) + zeros(1),
    "a file within the limit, then zeros behind the end": lambda: gz(
        header_of("ok", 1) + b"1".ljust(512, b"\0") + END) + zeros(1),
    "skipped folders with content": lambda: gz(header_of("d/", 1 << 30, b"5")) + zeros(1),
    "many files that are too much together": lambda: b"".join(
        gz(header_of(f"f{n}", 10 * MIB)) + gzip.compress(bytes(10 * MIB)) for n in range(12)),
    "a pax header of gigabytes": lambda: gz(header_of("x", 8**11 - 1, b"x")) + zeros(1),
    "a global pax header of gigabytes": lambda: gz(header_of("x", 8**11 - 1, b"g")) + zeros(1),
    "a long name of gigabytes": lambda: gz(header_of("x", 8**11 - 1, b"L")) + zeros(1),
    "a pax header of gigabytes that is not there": lambda: header_of("x", 8**11 - 1, b"x") + END,
    "a pax record that claims gigabytes": lambda: header_of("x", 30, b"x")
        + b"9999999999 path=x\n".ljust(512, b"\0") + header_of("f", 0) + END,
    "a pax record of no length": lambda: header_of("x", 30, b"x")
        + b"0 path=x\n".ljust(512, b"\0") + header_of("f", 0) + END,
    "a pax size of gigabytes": lambda: tarred(
        (info("f", pax_headers={"size": "99999999999"}), b"1"), mode="w"),
    "a million pax records": lambda: gz(header_of("x", 8_000_000, b"x")
        + b"8 a=bcd\n" * 1_000_000 + header_of("f", 0) + END),
    "two hundred thousand pax headers in a row": lambda: gz(
        (header_of("x", 8, b"x") + b"8 a=bcd\n".ljust(512, b"\0")) * 100_000 + END),
    "two hundred thousand long names in a row": lambda: gz(
        (header_of("x", 8, b"L") + b"12345678".ljust(512, b"\0")) * 100_000 + END),
    "two hundred thousand empty files": lambda: gz(empty_files(200_000) + END),
    "two hundred thousand folders": lambda: gz(header_of("d/", 0, b"5") * 200_000 + END),
    "a sparse map of a million": lambda: tarred((info("f", pax_headers={
        "GNU.sparse.size": "1000", "GNU.sparse.map": "0,0," * 1_000_000 + "0,0"}), b"")),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused(box: Box, bomb: str) -> None:
    assert refused(box, BOMBS[bomb]())


@pytest.mark.parametrize("kind", [b"x", b"g", b"X", b"L", b"K"])
def test_a_header_that_only_describes_is_never_long(box: Box, kind: bytes) -> None:
    # Half of the memory of an inspection: it would be held, joined and decoded.
    bomb = gz(header_of("x", 20 * MIB, kind) + bytes(30 * MIB))
    assert refused(box, bomb) == "The archive has a header of more than 1 MB."


def test_an_archive_within_an_archive_stays_packed(box: Box) -> None:
    inner = gz(header_of("zeros", 1 << 28)) + zeros(0.25)
    for _ in range(10):
        inner = tarred(("inner.tar.gz", inner))
    (member,) = box.inspect(inner).members
    assert member.path == "inner.tar.gz" and member.size < MIB


def test_gzip_within_gzip_is_refused(box: Box) -> None:
    assert refused(box, gz(gz(tarred(ONE, mode="w"))))


def test_one_member_too_many_is_refused(box: Box) -> None:
    archive = gzip.compress(empty_files(MAX_MEMBERS + 1) + END, 1)
    assert str(MAX_MEMBERS) in refused(box, archive)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 400])
def test_too_deep_is_refused(box: Box, depth: int) -> None:
    assert "deep" in refused(box, tarred(("/".join("d" * depth), b"")))


def test_a_depth_of_two_thousand_is_refused(box: Box) -> None:
    assert refused(box, tarred(("/".join("d" * 2000), b"")))


@pytest.mark.parametrize("name", ["x" * 256, "a/" + "ü" * 128 + "/b", "y" * 5000, "/y" * 2500])
def test_too_long_names_are_refused(box: Box, name: str) -> None:
    assert refused(box, tarred((info(name.lstrip("/")), b"")))


@pytest.mark.parametrize("length", [240, 270, 300, 500])
def test_ten_thousand_long_names_have_an_answer(box: Box, length: int) -> None:
    # Each character is two bytes here, six in the JSON that inspect says: more than web takes.
    name = "/".join(["é" * 120] * 4)[:length].rstrip("/") + "/"
    members = [(f"{name}{number}", b"") for number in range(MAX_MEMBERS)]
    try:
        inspection = box.inspect(tarred(*members, mode="w"))
    except BundleRefused as refusal:
        assert str(refusal).endswith(".")
    else:
        assert len(inspection.members) == MAX_MEMBERS


# --- refusals: damaged -----------------------------------------------------------------------

GOOD = tarred(
    (info("main.py", mode=0o755, mtime=1_600_000_000), b"print(42)\n" * 30),
    ("data/" + "n" * 120, random.Random(3).randbytes(2000)),
    (info("ü.txt", pax_headers={"comment": "ü" * 30}), b"x" * 600),
    ("job.json", b'{"entrypoint": "main.py"}'),
    mode="w",
)


def damaged_header() -> bytes:
    archive = bytearray(tarred(("a", b"1"), ("b", b"2"), ("c", b"3"), mode="w"))
    archive[1024] ^= 1  # the name of b, and so its checksum
    return bytes(archive)


def wrong_crc() -> bytes:
    packed = bytearray(gz(GOOD))
    packed[-6] ^= 1
    return bytes(packed)


def wrong_length() -> bytes:
    packed = gz(GOOD)
    return packed[:-4] + struct.pack("<I", len(GOOD) + 1)


def damaged_deflate() -> bytes:
    packed = bytearray(gz(GOOD))
    packed[len(packed) // 2] ^= 0xFF
    return bytes(packed)


DAMAGED: dict[str, Callable[[], bytes]] = {
    "zero bytes": lambda: b"",
    "one byte": lambda: b"\x1f",
    "gzip's magic alone": lambda: b"\x1f\x8b",
    "an empty gzip": lambda: gz(b""),
    "an empty tar": lambda: END * 10,
    "an empty tar.gz": lambda: tarred(),
    "only folders": lambda: tarred((info("a", **FOLDER), b""), (info("a/b", **FOLDER), b"")),
    "random bytes": lambda: random.Random(4).randbytes(100_000),
    "random bytes in gzip": lambda: gz(random.Random(5).randbytes(100_000)),
    "a zip's magic alone": lambda: b"PK\x03\x04" + bytes(1000),
    "text": lambda: b"print(42)\n" * 200,
    "gzip cut in the header": lambda: gz(GOOD)[:8],
    "gzip cut in the middle": lambda: gz(GOOD)[: len(gz(GOOD)) // 2],
    "gzip cut in the checksum": lambda: gz(GOOD)[:-5],
    "a tar cut in a file": lambda: tarred(("a", b"1" * 2000), mode="w")[:1200],
    "a tar cut in a header": lambda: tarred(("a", b"1"), ("b", b"2"), mode="w")[:1300],
    "a wrong checksum of gzip": wrong_crc,
    "a wrong length of gzip": wrong_length,
    "rubbish behind gzip": lambda: gz(GOOD) + b"rubbish",
    "damaged deflate": damaged_deflate,
    "a damaged header in the middle": damaged_header,
    "a pax time that is no number": lambda: tarred(
        (info("f", pax_headers={"mtime": "nan"}), b""), mode="w"),
    "a pax time without end": lambda: tarred((info("f", pax_headers={"mtime": "inf"}), b"")),
    "a negative size": lambda: with_checksum(
        header_of("f", 1)[:124] + b"\xff" * 12 + header_of("f", 1)[136:]) + END,
    "a negative pax size": lambda: tarred((info("f", pax_headers={"size": "-512"}), b"")),
    "a size of 95 bits": lambda: with_checksum(
        header_of("f", 1)[:124] + b"\x80" + b"\xff" * 11 + header_of("f", 1)[136:]) + END,
    "an old sparse map that is no number": lambda: tarred(
        (info("f", pax_headers={"GNU.sparse.map": "a,b,c", "GNU.sparse.size": "9"}), b"")),
    "a pax header that ends the archive": lambda: header_of("x", 8, b"x")
        + b"8 a=bcd\n".ljust(512, b"\0"),
    "a lone surrogate in a pax name": lambda: header_of("x", 17, b"x")
        + b"17 path=a\xed\xa0\x80bcd\n".ljust(512, b"\0") + header_of("/", 0) + END,
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_bytes_are_refused(box: Box, case: str) -> None:
    assert refused(box, DAMAGED[case]())


OTHERS = {
    "7z": b"7z\xbc\xaf\x27\x1c\0\4", "xz": b"\xfd7zXZ\0", "bzip2": b"BZh91AY&SY",
    "rar": b"Rar!\x1a\7\1\0", "zstd": b"\x28\xb5\x2f\xfd", "a script": b"#!/bin/sh\necho hi\n",
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("length", [0, 5000])
def test_what_is_no_archive_of_ours_is_told_which_are(box: Box, other: str, length: int) -> None:
    archive = OTHERS[other] + random.Random(8).randbytes(length)
    for upload in (archive, gz(archive)):
        assert "read as zip, tar or tar.gz" in refused(box, upload)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """A few random changes: bits, bytes, pieces cut out, doubled, swapped."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5))):
        at, size = dice.randrange(len(changed)), dice.choice((1, 2, 12, 100, 512))
        kind = dice.randrange(6)
        if kind == 0:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            changed[at : at + size] = dice.randbytes(len(changed[at : at + size]))
        elif kind == 2 and len(changed) > 1024:
            del changed[at : at + size]
        elif kind == 3:
            changed[at:at] = changed[at : at + size]
        elif kind == 4:
            # A field of a header, with the checksum made right: it gets past the door.
            block = at // 512 * 512
            field = dice.choice(((0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (345, 155)))
            start, length = block + field[0], min(field[1], size)
            if len(changed) >= block + 512:
                changed[start : start + length] = dice.choice(
                    (dice.randbytes(length), b"\xff" * length, b"7" * length, bytes(length))
                )
                changed[block : block + 512] = with_checksum(bytes(changed[block : block + 512]))
        else:
            del changed[max(at, 100) :]
    return bytes(changed)


@pytest.mark.parametrize("seed", range(3))
def test_a_mutated_archive_is_read_or_refused_and_never_our_fault(box: Box, seed: int) -> None:
    dice = random.Random(seed)
    packed = zlib.compress(GOOD, wbits=31)
    archives = [mutated(GOOD, dice) for _ in range(40)]
    archives += [zlib.compress(mutated(GOOD, dice), wbits=31) for _ in range(30)]
    archives += [mutated(packed, dice) for _ in range(30)]
    turns = asyncio.Semaphore(8)

    async def inspect(archive: bytes) -> Inspection:
        async with turns:
            fd = channel.memfd("upload", archive)
            try:
                return await box.sandbox.inspect(fd)
            finally:
                os.close(fd)

    async def all_of_them() -> list[Inspection | BaseException]:
        return await asyncio.gather(*map(inspect, archives), return_exceptions=True)

    answers = box.wait(all_of_them())
    assert {type(answer) for answer in answers} == {Inspection, BundleRefused}, answers
    read = [answer for answer in answers if isinstance(answer, Inspection)]
    assert len(read) > 5
    for answer in read:
        for path in paths(answer):
            assert path and not path.startswith("/") and ".." not in path.split("/")


def test_refused_uploads_disturb_no_job_beside_them(box: Box) -> None:
    # A refused sandbox's descriptors are closed, and their numbers are other jobs' at once.
    faults: list[dict[str, Any]] = []
    bad = Bundle("archive", channel.memfd("bad", b"no archive"), ())

    async def refuse() -> None:
        for _ in range(15):
            with pytest.raises(BundleRefused):
                await box.sandbox.inspect(bad.fd)
            copy = Bundle("archive", os.dup(bad.fd), ())
            with pytest.raises(BundleRefused):
                await box.arun(Command((("true",),), BASE_ENV), bundle=copy)

    async def work(number: int) -> None:
        script = f"head -c 300000 /dev/zero; echo {number} >&2; echo {number} > out"
        for _ in range(10):
            ran = await box.arun(Command((("sh", "-c", script),), BASE_ENV))
            assert len(ran.stdout) == 300_000 and ran.stderr == b"%d\n" % number
            assert ran.files == {"out": b"%d\n" % number}

    async def both() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        await asyncio.gather(refuse(), refuse(), work(1), work(2))
        asyncio.get_running_loop().set_exception_handler(None)

    try:
        box.wait(both())
    finally:
        os.close(bad.fd)
    assert faults == []


def test_what_was_inspected_of_mutated_archives_is_what_is_unpacked(box: Box) -> None:
    dice = random.Random(7)
    assert sum(is_unpacked_as_inspected(box, mutated(GOOD, dice)) for _ in range(40)) > 5


def is_unpacked_as_inspected(box: Box, archive: bytes) -> bool:
    """Or refused by both, which is False."""
    try:
        inspection = box.inspect(archive)
    except BundleRefused:
        with pytest.raises(BundleRefused):
            run(box, archive, "true")
        return False
    ran = run(box, archive, "python3", "-c", LISTING, members=inspection.members)
    assert json.loads(ran.text) == sorted(map(list, inspection.members))
    return True


# --- zip -------------------------------------------------------------------------------------
#
# By hand, since writers that behave cannot say one thing in front of a member and another in the
# table at the end, or two members over the same bytes.


class Zipped(NamedTuple):
    """One member: what is packed, and what its two headers claim about it."""

    name: bytes | str
    content: bytes = b""
    method: int = 8
    flags: int = 0x800  # the name is UTF-8
    mode: int = 0o100644
    maker: int = 3
    when: tuple[int, int] = (0, 0x21)  # DOS time and date: 1980-01-01
    packed: bytes | None = None
    size: int | None = None
    crc: int | None = None
    extra: bytes = b""
    offset: int | None = None  # of a header that somebody else has
    table: dict[str, int] = {}  # noqa: RUF012 (what only the table says)
    local: dict[str, Any] = {}  # noqa: RUF012 (what only the header in front says)

    @property
    def raw_name(self) -> bytes:
        return self.name.encode() if isinstance(self.name, str) else self.name

    @property
    def raw(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflated(self.content) if self.method == 8 else self.content

    def fields(self) -> dict[str, Any]:
        size = len(self.content) if self.size is None else self.size
        crc = zlib.crc32(self.content) if self.crc is None else self.crc
        return {"flags": self.flags, "method": self.method, "crc": crc, "packed": len(self.raw),
                "size": size, "name": self.raw_name, "disk": 0}  # fmt: skip

    def front(self) -> bytes:
        f = self.fields() | self.local
        head = struct.pack("<4sHHHHHLLLHH", b"PK\3\4", 20, f["flags"], f["method"], *self.when,
                           f["crc"], f["packed"], f["size"], len(f["name"]), 0)  # fmt: skip
        return head + f["name"] + (self.raw if self.offset is None else b"")

    def row(self, offset: int) -> bytes:
        f = self.fields() | {"offset": offset} | self.table
        head = struct.pack("<4sBBHHHHHLLLHHHHHLL", b"PK\1\2", 30, self.maker, 20, f["flags"],
                           f["method"], *self.when, f["crc"], f["packed"], f["size"],
                           len(f["name"]), len(self.extra), 0, f["disk"], 0, self.mode << 16,
                           f["offset"])  # fmt: skip
        return head + f["name"] + self.extra


def deflated(data: bytes) -> bytes:
    return zlib.compress(data, 9, wbits=-15)


def flushed(data: bytes) -> bytes:
    """All of it, as if more came."""
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)


def zip_of(*members: Zipped, behind: bytes = b"", prefix: bytes = b"", **end: Any) -> bytes:
    """A zip whose last record claims what `end` says; `behind` is between members and table."""
    body, rows = bytearray(prefix), bytearray()
    for member in members:
        if member.offset is None:
            rows += member.row(len(body))
            body += member.front()
        else:
            rows += member.row(member.offset)
    body += behind
    f = {"count": len(members), "size": len(rows), "offset": len(body), "disk": 0,
         "comment": b""} | end  # fmt: skip
    last = struct.pack("<4sHHHHLLH", b"PK\5\6", f["disk"], f["disk"], f["count"], f["count"],
                       f["size"], f["offset"], len(f["comment"]))  # fmt: skip
    return bytes(body + rows) + end.get("zip64", b"") + last + f["comment"]


def written(
    *members: tuple[zipfile.ZipInfo | str, bytes], how: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """A zip as Python's own writer makes it."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return buffer.getvalue()


def refused_by_both(box: Box, archive: bytes) -> str:
    """Also by the sandbox of a job, which reads it again."""
    with pytest.raises(BundleRefused):
        run(box, archive, "true")
    return refused(box, archive)


def zip_info(name: str, mode: int = 0o100644, when: tuple[int, ...] = (2024, 2, 29, 13, 30, 58),
             how: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:  # fmt: skip
    member = zipfile.ZipInfo(name, when)  # type: ignore[arg-type]
    member.external_attr = mode << 16
    member.compress_type = how
    return member


ZIP_ONE = Zipped("ok", b"1")


@pytest.mark.core
@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_folders_modes_and_times_of_a_zip_are_read(box: Box, how: int) -> None:
    noise = random.Random(6).randbytes(3_000_000)
    inspection = box.inspect(
        written(
            (zip_info("./main.py", how=how), b"print(42)"),
            (zip_info("tool", 0o100755, how=how), b"#!/bin/sh\n"),
            (zip_info("data/", 0o40755, how=how), b""),
            (zip_info("data//deep/./er/x.csv", 0o100600, (1980, 1, 1, 0, 0, 0), how), noise),
            (zip_info("from-dos", 0, (2107, 12, 31, 23, 59, 58), how), b"1" * 3_000_000),
            (zip_info("empty", 0o104755, (2100, 3, 1, 0, 0, 0), how), b""),
        )
    )
    assert inspection.job_json is None
    assert inspection.members == tuple(
        Member(path, len(content), seconds * 10**9, mode, hashlib.sha256(content).hexdigest())
        for path, content, seconds, mode in (
            ("main.py", b"print(42)", 1_709_213_458, 0o644),
            ("tool", b"#!/bin/sh\n", 1_709_213_458, 0o755),
            ("data/deep/er/x.csv", noise, 315_532_800, 0o644),
            ("from-dos", b"1" * 3_000_000, 4_354_819_198, 0o644),
            ("empty", b"", 4_107_542_400, 0o755),
        )
    )


def test_the_date_of_every_day_that_a_zip_can_say_is_right() -> None:
    day = datetime(1980, 1, 1, 12, 34, 56, tzinfo=UTC)
    while day.year < 2108:
        date = day.year - 1980 << 9 | day.month << 5 | day.day
        assert _unix_time(date, 12 << 11 | 34 << 5 | 28) == int(day.timestamp())
        day += timedelta(1)


@pytest.mark.parametrize("when", [(0, 0), (0xFFFF, 0xFFFF), (0xFFFF, 0), (0, 13 << 5)])
def test_a_date_that_is_none_is_some_date(box: Box, when: tuple[int, int]) -> None:
    (member,) = box.inspect(zip_of(ZIP_ONE._replace(when=when))).members
    assert 315_532_800 <= member.mtime_ns // 10**9 < 4_354_819_200 + 86_400 * 2


def test_zips_as_other_programs_write_them(box: Box, tmp_path: Any) -> None:
    if not shutil.which("zip"):
        pytest.skip("there is no zip")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "ü.py").write_text("1" * 1000)
    (tmp_path / "run.sh").write_text("2")
    (tmp_path / "run.sh").chmod(0o775)
    for options in ("-r x.zip .", "-0r x.zip .", "-r -fz x.zip .", "-r - . | cat > x.zip",
                    "-rz x.zip . < run.sh"):  # fmt: skip
        os.system(f"cd {tmp_path} && rm -f x.zip && zip -q {options}")
        archive = (tmp_path / "x.zip").read_bytes()
        members = {m.path: m.mode for m in box.inspect(archive).members if m.path != "x.zip"}
        assert members == {"pkg/ü.py": 0o644, "run.sh": 0o755}, options


def test_zips_that_were_streamed_or_are_large_are_read(box: Box) -> None:
    class Pipe(BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    for buffer in (Pipe(), BytesIO()):
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open("a", "w", force_zip64=True) as file:
                file.write(b"1" * 1000)
            archive.writestr("b", b"2")
            archive.comment = b"PK\5\6" * 20
        ran = run(box, buffer.getvalue(), "cat", "a", "b")
        assert ran.text == "1" * 1000 + "2"
        assert paths(box.inspect(buffer.getvalue())) == ["a", "b"]


def test_a_zip_that_bsdtar_writes_to_a_pipe_is_filled_up_with_zeros(box: Box) -> None:
    for comment in (b"", b"a comment"):
        archive = zip_of(ZIP_ONE, comment=comment)
        for length in (1, 10_240 - len(archive), 60_000):
            assert paths(box.inspect(archive + bytes(length))) == ["ok"]
        assert "something follows" in refused(box, archive + bytes(100) + b"x")
        assert "something follows" in refused(box, archive + bytes(70_000))


def test_a_zip_of_macos_is_read(box: Box) -> None:
    # Archive Utility: sizes behind the bytes (flag 8), UTF-8 without its flag, __MACOSX beside.
    later = {"crc": 0, "packed": 0, "size": 0}
    body = b""
    rows = []
    for name, content in (("app/", b""), ("app/e\u0301.py", b"print(1)"),
                          ("__MACOSX/app/._e\u0301.py", b"\0\5\x16\7")):  # fmt: skip
        flags = 0 if name.endswith("/") else 8
        mode = 0o40755 if name.endswith("/") else 0o100644
        member = Zipped(name, content, 8 if flags else 0, flags, mode, local=later if flags else {})
        rows.append(member.row(len(body)))
        body += member.front()
        if flags:
            fields = member.fields()
            body += struct.pack("<4sLLL", b"PK\7\x08", *(fields[key] for key in later))
    table = b"".join(rows)
    last = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 3, 3, len(table), len(body), 0)
    inspection = box.inspect(body + table + last)
    assert paths(inspection) == ["app/e\u0301.py", "__MACOSX/app/._e\u0301.py"]


def zip64_of(*members: Zipped, **claims: Any) -> bytes:
    """As zip_of, with all numbers in the larger records."""
    body, rows = bytearray(), bytearray()
    for member in members:
        large = {"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF, "offset": 0xFFFFFFFF, "disk": 0xFFFF}
        values = [len(member.content), len(member.raw), len(body), 0]
        extra = b"UT\1\0x" + struct.pack("<HHQQQL", 1, 28, *values)
        rows += member._replace(table=large, extra=claims.get("extra", extra)).row(0)
        body += member.front()
    f = {"count": len(members), "size": len(rows), "offset": len(body), "disk": 0,
         "at": len(body) + len(rows), "length": 44} | claims  # fmt: skip
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", f["length"], 45, 45, f["disk"], f["disk"],
                         f["count"], f["count"], f["size"], f["offset"])  # fmt: skip
    place = struct.pack("<4sLQL", b"PK\6\7", 0, f["at"], 1)
    last = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return bytes(body + rows) + record + place + last


def test_a_zip64_is_read(box: Box) -> None:
    archive = zip64_of(
        Zipped("a", b"1" * 5000, 8), Zipped("d/", mode=0o40755), Zipped("b", b"2", 0)
    )
    inspection = box.inspect(archive)
    assert [member[:2] for member in inspection.members] == [("a", 5000), ("b", 1)]
    ran = run(box, archive, "python3", "-c", LISTING, members=inspection.members)
    assert json.loads(ran.text) == sorted(map(list, inspection.members))


ZIP64_DAMAGED: dict[str, dict[str, Any]] = {
    "more members than fit": {"count": 1 << 40},
    "a table of exabytes": {"size": (1 << 64) - 1},
    "a table beyond the end": {"offset": (1 << 64) - 1},
    "a table before the beginning": {"offset": 1 << 63},
    "a record elsewhere": {"at": 0},
    "a record beyond the end": {"at": (1 << 64) - 1},
    "a record of exabytes": {"length": (1 << 64) - 13},
    "a part of several": {"disk": 1},
    "no extra field": {"extra": b""},
    "an extra field of nothing": {"extra": b"\1\0\0\0"},
    "an extra field cut off": {"extra": struct.pack("<HHQ", 1, 8, 1)},
    "an extra field longer than the extra fields": {"extra": struct.pack("<HHQ", 1, 28, 1)},
    "a member of exabytes": {"extra": struct.pack("<HHQQQL", 1, 28, 1, (1 << 64) - 1, 0, 0)},
    "a member beyond the end": {"extra": struct.pack("<HHQQQL", 1, 28, 1, 3, (1 << 64) - 1, 0)},
    "a content of exabytes": {"extra": struct.pack("<HHQQQL", 1, 28, (1 << 64) - 1, 3, 0, 0)},
    "a member on another disk": {"extra": struct.pack("<HHQQQL", 1, 28, 1, 3, 0, 1)},
}


@pytest.mark.parametrize("case", ZIP64_DAMAGED)
def test_a_zip64_that_lies_is_refused(box: Box, case: str) -> None:
    assert box.inspect(zip64_of(ZIP_ONE))
    assert refused_by_both(box, zip64_of(ZIP_ONE, **ZIP64_DAMAGED[case]))


def test_names_of_a_zip_are_utf8_or_cp437(box: Box) -> None:
    cases = [
        (Zipped("ü/日本語.txt"), "ü/日本語.txt"),
        (Zipped("name\nwith\x1b[31mescapes"), "name\nwith\x1b[31mescapes"),
        (Zipped(b"\xff\xfe.bin"), "\udcff\udcfe.bin"),  # said to be UTF-8
        (Zipped(b"\x81\xe1\x9c.txt", flags=0, maker=0), "üß£.txt"),
        (Zipped("é".encode(), flags=0, maker=0), "├⌐"),
        (Zipped("é".encode(), flags=0, maker=3), "é"),  # zip and macOS forget the flag
        (Zipped("ö".encode(), flags=0, maker=19), "ö"),
        (Zipped(b"\x82.py", flags=0, maker=3), "é.py"),
        *((Zipped(name), name) for name in (" leading", "-rf", "~root", "x" * 255, "trailing.")),
    ]
    names = [name for _, name in cases]
    archive = zip_of(*(member for member, _ in cases))
    inspection = box.inspect(archive)
    assert paths(inspection) == names
    ran = run(box, archive, "python3", "-c", LISTING, members=inspection.members)
    assert json.loads(ran.text) == sorted(map(list, inspection.members))
    assert ran.files == {}


def test_backslashes_of_windows_are_slashes(box: Box) -> None:
    # Compress-Archive of Windows PowerShell 5, and .NET before 4.6.1: no slash in any name.
    windows = Zipped("src\\main.py", b"1", flags=0, maker=0, mode=0)
    others = ("src\\deep\\ü.txt", 0x800), ("top", 0), ("src\\empty\\", 0)
    archive = zip_of(windows, *(Zipped(name, flags=f, maker=0, mode=0) for name, f in others))
    inspection = box.inspect(archive)
    assert paths(inspection) == ["src/main.py", "src/deep/ü.txt", "top"]
    ran = run(box, archive, "sh", "-c", "find . -type d | sort", members=inspection.members)
    assert ran.text == ".\n./src\n./src/deep\n./src/empty\n" and ran.files == {}
    ran = run(box, archive, "python3", "-c", LISTING, members=inspection.members)
    assert json.loads(ran.text) == sorted(map(list, inspection.members))


WINDOWS_PLACES = {
    "..\\x": "leads out", "a\\..\\..\\x": "leads out", "..\\": "leads out",
    "\\x": "relative", "\\\\srv\\x": "relative", "C:\\x": "relative", "a/..\\x": "relative",
    ".\\ok": "twice", "ok\\x": "below a file", "ok\\": "twice", "\\": "relative",
    "d\\" * MAX_DEPTH + "f": "deep",
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS_PLACES)
def test_a_name_with_backslashes_that_leads_elsewhere_is_refused(box: Box, name: str) -> None:
    archive = zip_of(ZIP_ONE, Zipped(name, maker=0, mode=0))
    assert WINDOWS_PLACES[name] in refused_by_both(box, archive)


def test_what_a_runner_could_use_is_only_a_name_in_a_zip(box: Box) -> None:
    archive = written(*((name, b"{}") for name in NAMES))
    inspection = box.inspect(archive)
    assert paths(inspection) == NAMES and inspection.job_json == b"{}"
    ran = run(box, archive, "sh", "-c", "find . -type f | sort", members=inspection.members)
    assert ran.text == "".join(f"./{name}\n" for name in sorted(NAMES)) and ran.files == {}


def test_a_wrapping_folder_of_a_zip_stays(box: Box) -> None:
    archive = written(("project/main.py", b""), ("project/job.json", b"{}"))
    inspection = box.inspect(archive)
    assert paths(inspection) == ["project/main.py", "project/job.json"]
    assert inspection.job_json is None


def test_job_json_of_a_zip_comes_back_byte_for_byte(box: Box) -> None:
    for content in (b"", bytes(range(256)) * 4, b"\xff" * MAX_JOB_JSON):
        assert box.inspect(written(("x", b""), ("./job.json", content))).job_json == content
    assert "job.json" in refused(box, written(("job.json", bytes(MAX_JOB_JSON + 1))))


def test_modes_of_a_zip_are_not_taken_over(box: Box) -> None:
    modes = {"setuid": 0o104755, "setgid": 0o102755, "open": 0o100777, "closed": 0o100000,
             "locked/": 0o40000}  # fmt: skip
    archive = zip_of(*(Zipped(name, mode=mode) for name, mode in modes.items()))
    assert {m.path: m.mode for m in box.inspect(archive).members} == {
        "setuid": 0o755, "setgid": 0o755, "open": 0o755, "closed": 0o644,
    }  # fmt: skip
    shown = run(box, archive, "stat", "-c", "%a %u %g", "setuid", "closed", "locked").text
    assert shown == "755 1000 1000\n644 1000 1000\n755 1000 1000\n"


def test_as_many_as_deep_and_as_long_as_allowed_in_a_zip(box: Box) -> None:
    deep = "/".join("d" for _ in range(MAX_DEPTH - 1)) + "/f"
    long = "/".join(["n" * 255] * 4)[:MAX_PATH_BYTES]
    many = [Zipped(f"{n}", packed=b"", method=0) for n in range(MAX_MEMBERS - 2)]
    archive = zip_of(Zipped(deep), Zipped(long), *many)
    inspection = box.inspect(archive)
    assert paths(inspection)[:3] == [deep, long, "0"]
    assert len(inspection.members) == MAX_MEMBERS
    assert run(box, archive, "sh", "-c", "ls | wc -l").text == f"{MAX_MEMBERS}\n"


@pytest.mark.parametrize("name", [name for name in PLACES if name != "./"])
def test_a_name_in_a_zip_that_leads_elsewhere_is_refused(box: Box, name: str) -> None:
    assert PLACES[name] in refused_by_both(box, zip_of(ZIP_ONE, Zipped(name)))


@pytest.mark.parametrize("name", ["../", "/", "a/../../", "C:/", "\\", "../x/", "x\\"])
def test_a_folder_in_a_zip_that_leads_elsewhere_is_refused(box: Box, name: str) -> None:
    if name != "/":
        assert refused_by_both(box, zip_of(ZIP_ONE, Zipped(name, mode=0o40755)))
    assert refused_by_both(box, zip_of(ZIP_ONE, Zipped("/" + name, mode=0o40755)))


@pytest.mark.parametrize("name", [b"a\0b", b"ok.txt\0/../../x", b"\0", b"a\0"])
def test_a_nul_in_the_name_of_a_zip_is_refused(box: Box, name: bytes) -> None:
    assert "relative" in refused_by_both(box, zip_of(ZIP_ONE, Zipped(name)))


@pytest.mark.parametrize("maker", [0, 3, 10, 19])
@pytest.mark.parametrize("name", ["link", "link/"])
def test_links_in_a_zip_are_refused(box: Box, maker: int, name: str) -> None:
    link = Zipped(name, b"/etc/passwd", mode=0o120777, maker=maker)
    assert "is a link;" in refused_by_both(box, zip_of(ZIP_ONE, link, Zipped("link/x")))


@pytest.mark.parametrize("kind", [0o010000, 0o020000, 0o060000, 0o140000, 0o170000, 0o030000])
def test_what_is_neither_file_nor_folder_in_a_zip_is_refused(box: Box, kind: int) -> None:
    assert "neither" in refused_by_both(box, zip_of(ZIP_ONE, Zipped("thing", mode=kind | 0o666)))


def test_a_folder_with_content_in_a_zip_is_refused(box: Box) -> None:
    for member in (Zipped("x/", b"1"), Zipped("x", b"1", mode=0o40755)):
        assert "neither" in refused_by_both(box, zip_of(ZIP_ONE, member))


ZIP_TWICE: dict[str, list[Zipped]] = {
    "same name": [Zipped("x"), Zipped("x")],
    "dot slash": [Zipped("x"), Zipped("./x")],
    "double slash": [Zipped("a/x"), Zipped("a//x")],
    "two spellings": [Zipped("é"), Zipped(b"\x82", flags=0, maker=0)],
    "file then folder": [Zipped("x"), Zipped("x/")],
    "file then folder by mode": [Zipped("x"), Zipped("x", mode=0o40755)],
    "folder then file": [Zipped("x/"), Zipped("x")],
    "file then far below": [Zipped("x"), Zipped("x/y/z")],
    "file then folder below": [Zipped("x"), Zipped("x/y/")],
    "below then file": [Zipped("x/y/z"), Zipped("x/y")],
}


@pytest.mark.parametrize("case", ZIP_TWICE)
def test_two_members_of_a_zip_at_one_place_are_refused(box: Box, case: str) -> None:
    assert refused_by_both(box, zip_of(*ZIP_TWICE[case]))


def test_a_folder_of_a_zip_may_be_named_twice_and_after_its_files(box: Box) -> None:
    archive = zip_of(Zipped("a/b"), Zipped("a/"), Zipped("./a/"), Zipped("e", mode=0o40755),
                     Zipped("A"), Zipped("./"))  # fmt: skip
    assert paths(box.inspect(archive)) == ["a/b", "A"]
    assert run(box, archive, "ls", "-p").text == "A\na/\ne/\n"


@pytest.mark.parametrize("flags", [0x1, 0x41, 0x40, 0x2000, 0x2009])
def test_an_encrypted_member_of_a_zip_is_refused(box: Box, flags: int) -> None:
    secret = Zipped("secret", b"1", flags=flags)
    assert "password" in refused_by_both(box, zip_of(ZIP_ONE, secret))
    hidden = Zipped("secret", b"1", local={"flags": flags})
    assert "two things" in refused_by_both(box, zip_of(ZIP_ONE, hidden))


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_in_a_zip_is_refused(box: Box, how: int) -> None:
    assert "only deflate" in refused_by_both(box, written(("main.py", b"x" * 100), how=how))


@pytest.mark.parametrize("method", [1, 6, 9, 93, 95, 97, 99, 65535])
def test_a_method_in_a_zip_that_nobody_knows_is_refused(box: Box, method: int) -> None:
    assert f"method {method}" in refused_by_both(box, zip_of(Zipped("x", b"1", method=method)))


def overlapping(count: int, size: int) -> bytes:
    """One kernel of zeros that every member has: a "better zip bomb"."""
    content = bytes(size)
    kernel = Zipped("0" * 6, packed=deflated(content), size=size, crc=zlib.crc32(content))
    others = [kernel._replace(name=f"{n:06}", offset=0) for n in range(1, count)]
    return zip_of(kernel, *others)


def nested() -> bytes:
    """Each member's bytes begin within those of the one before: its header is their content."""
    inner = Zipped("inner", bytes(5 * MIB))
    outer = Zipped("outer", b"", 0, packed=inner.front(), size=len(inner.front()),
                   crc=zlib.crc32(inner.front()))  # fmt: skip
    start = len(outer.front()) - len(inner.front())
    return zip_of(outer, inner._replace(offset=start))


def million_rows(count: int, claimed: int) -> bytes:
    row = Zipped("x").row(0)
    return zip_of(Zipped("x"), behind=b"", size=len(row) * count, count=claimed).replace(
        row, row * count
    )


ZIP_BOMBS: dict[str, Callable[[], bytes]] = {
    "a gigabyte of zeros": lambda: zip_of(Zipped("zeros", packed=deflated(bytes(1 << 28)) * 4,
                                                 size=1 << 30)),
    "256 MB that say they are a byte": lambda: zip_of(
        Zipped("zeros", packed=deflated(bytes(1 << 28)), size=1)),
    "256 MB that say they are nothing": lambda: zip_of(
        Zipped("zeros", packed=deflated(bytes(1 << 28)), size=0)),
    "256 MB that say they are what is allowed": lambda: zip_of(
        Zipped("zeros", packed=deflated(bytes(1 << 28)), size=99 * MIB)),
    "many files that are too much together": lambda: zip_of(
        *(Zipped(f"{n}", packed=deflated(bytes(10 * MIB)), size=10 * MIB,
                 crc=zlib.crc32(bytes(10 * MIB))) for n in range(12))),
    "members over the same bytes": lambda: overlapping(5000, 20_000),
    "members over the same bytes, more than are allowed": lambda: overlapping(20_000, MIB),
    "a member within a member": nested,
    "a million rows": lambda: million_rows(1_000_000, 0xFFFF),
    "a million rows that say they are one": lambda: million_rows(1_000_000, 1),
    "a million rows that say they are ten thousand": lambda: million_rows(1_000_000, MAX_MEMBERS),
    "two hundred thousand rows that say they are ten thousand": lambda: million_rows(
        200_000, MAX_MEMBERS),
    "a comment of last records": lambda: zip_of(
        ZIP_ONE, comment=(b"PK\5\6" * 16_380).ljust(65_535, b"P")) + b"x",
    "empty blocks without end": lambda: zip_of(
        Zipped("x", packed=b"\0\0\0\xff\xff" * 10_000_000 + b"\3\0", size=1)),
}  # fmt: skip


@pytest.mark.parametrize("bomb", ZIP_BOMBS)
def test_a_zip_bomb_is_refused(box: Box, bomb: str) -> None:
    assert refused(box, ZIP_BOMBS[bomb]())


def test_a_member_of_a_zip_that_lies_about_its_size_does_not_fill_the_disk_first(box: Box) -> None:
    with pytest.raises(BundleRefused, match="'zeros' in the zip archive is damaged"):
        run(box, ZIP_BOMBS["256 MB that say they are a byte"](), "true")


def test_members_of_a_zip_over_the_same_bytes_are_refused_as_such(box: Box) -> None:
    for archive in (overlapping(2, 10), nested()):
        assert box.inspect(zip_of(Zipped("a", b"1"), Zipped("b", b"2")))
        assert refused_by_both(box, archive)
    into_the_table = Zipped("x", b"1", 0, size=60, table={"packed": 60})
    for archive in (nested(), zip_of(ZIP_ONE, into_the_table)):
        assert "overlap" in refused(box, archive)


def test_too_many_rows_of_a_zip_are_refused_by_their_number_alone(box: Box) -> None:
    assert str(MAX_MEMBERS) in refused(box, zip_of(ZIP_ONE, count=MAX_MEMBERS + 1))
    assert str(MAX_MEMBERS) in refused(box, zip64_of(ZIP_ONE, count=1 << 40))
    assert "too long" in refused(box, million_rows(400_000, MAX_MEMBERS))


def test_a_zip_within_a_zip_stays_packed(box: Box) -> None:
    inner = zip_of(Zipped("zeros", packed=deflated(bytes(1 << 28)), size=1 << 28))
    for _ in range(10):
        inner = zip_of(*(Zipped(f"{n}.zip", inner) for n in range(3)))
    inspection = box.inspect(inner)
    assert paths(inspection) == ["0.zip", "1.zip", "2.zip"]
    assert inspection.members[0].size < MIB


def test_a_zip_larger_than_the_disk_is_refused_and_nothing_runs(box: Box) -> None:
    archive = written(*((name, bytes(MIB)) for name in "abc"))
    bundle = Bundle("archive", channel.memfd("upload", archive), ())
    with pytest.raises(BundleRefused, match="No space left on device"):
        box.wait(
            box.arun(Command((("echo",),), BASE_ENV), bundle=bundle, disk_bytes=2 * MIB)
        )  # fmt: skip


ZIP_LONG = {
    "too deep": "/".join("d" * (MAX_DEPTH + 1)), "much too deep": "/".join("d" * 2000),
    "a long name": "x" * 256, "a long name of two bytes a character": "a/" + "ü" * 128,
    "a long path": "y" * 5000, "the longest that a zip can say": "/y" * 32_767,
}  # fmt: skip


@pytest.mark.parametrize("case", ZIP_LONG)
def test_too_deep_and_too_long_names_in_a_zip_are_refused(box: Box, case: str) -> None:
    assert refused_by_both(box, zip_of(Zipped(ZIP_LONG[case].lstrip("/"))))


@pytest.mark.parametrize("length", [240, 300, 500, 1000])
def test_ten_thousand_long_names_in_a_zip_have_an_answer(box: Box, length: int) -> None:
    name = "/".join(["é" * 120] * 8)[:length].rstrip("/") + "/"
    try:
        inspection = box.inspect(zip_of(*(Zipped(f"{name}{n}") for n in range(MAX_MEMBERS))))
    except BundleRefused as refusal:
        assert str(refusal).endswith(".")
    else:
        assert len(inspection.members) == MAX_MEMBERS


ZIP_GOOD = zip_of(
    Zipped("main.py", b"print(42)\n" * 30, mode=0o100755, when=(0x6000, 0x5000)),
    Zipped("data/" + "n" * 120, random.Random(3).randbytes(2000), 0),
    Zipped("d/", mode=0o40755),
    Zipped("ü.txt", b"x" * 600, flags=0x808),
    Zipped("job.json", b'{"entrypoint": "main.py"}'),
    comment=b"a comment",
)


def zip_damaged(**fields: Any) -> bytes:
    return zip_of(ZIP_ONE, Zipped("x", b"12345" * 100)._replace(**fields), Zipped("y", b"2"))


ZIP_DAMAGED: dict[str, Callable[[], bytes]] = {
    "nothing but the last record": lambda: zip_of(),
    "only folders": lambda: zip_of(Zipped("a/"), Zipped("a/b/")),
    "magic alone": lambda: b"PK\5\6",
    "cut in a member": lambda: ZIP_GOOD[:200],
    "cut in the table": lambda: ZIP_GOOD[: ZIP_GOOD.index(b"PK\1\2") + 60],
    "cut before the last record": lambda: ZIP_GOOD[: ZIP_GOOD.index(b"PK\5\6")],
    "cut in the last record": lambda: ZIP_GOOD[: ZIP_GOOD.index(b"PK\5\6") + 21],
    "cut in the comment": lambda: ZIP_GOOD[:-1],
    "rubbish behind": lambda: ZIP_GOOD + b"rubbish",
    "seventy thousand zeros behind": lambda: ZIP_GOOD + bytes(70_000),
    "another zip behind, with its own offsets": lambda: ZIP_GOOD + zip_of(ZIP_ONE),
    "rubbish in front": lambda: b"#!/bin/sh\n" + ZIP_GOOD,
    "a member's magic and rubbish in front": lambda: b"PK\3\4" + bytes(100) + ZIP_GOOD,
    "a wrong checksum": lambda: zip_damaged(crc=1),
    "a wrong checksum of a stored file": lambda: zip_damaged(crc=1, method=0),
    "a wrong checksum of nothing": lambda: zip_damaged(content=b"", crc=1),
    "a size too small": lambda: zip_damaged(size=499),
    "a size too large": lambda: zip_damaged(size=501),
    "a stored size too small": lambda: zip_damaged(size=499, method=0),
    "a stored size too large": lambda: zip_damaged(size=501, method=0),
    "a packed size too small": lambda: zip_damaged(table={"packed": 5}),
    "a packed size of nothing": lambda: zip_damaged(table={"packed": 0}),
    "a packed size too large": lambda: zip_damaged(table={"packed": 10_000}),
    "damaged deflate": lambda: zip_damaged(packed=b"\xff" * 20),
    "deflate without an end": lambda: zip_damaged(packed=deflated(b"12345" * 100)[:-2]),
    "deflate whose last block does not say so": lambda: zip_damaged(packed=flushed(b"12345" * 100)),
    "rubbish behind deflate": lambda: zip_damaged(packed=deflated(b"12345" * 100) + b"x"),
    "much rubbish behind deflate": lambda: zip_damaged(
        packed=deflated(b"12345" * 100) + bytes(200_000)),
    "another name in front": lambda: zip_damaged(local={"name": b"z"}),
    "a longer name in front": lambda: zip_damaged(local={"name": b"xx"}),
    "a longer name in front, whose end the table counts as content": lambda: zip_of(
        Zipped("x", b"A1", 0, packed=b"1", local={"name": b"xA"}, table={"packed": 2})),
    "another magic in front": lambda: zip_damaged().replace(b"PK\3\4", b"PK\3\5").replace(
        b"PK\3\5", b"PK\3\4", 1),
    "another method in front": lambda: zip_damaged(local={"method": 0}),
    "no header where the table says": lambda: zip_damaged(table={"offset": 1}),
    "a header beyond the end": lambda: zip_damaged(table={"offset": 0xFFFFFFF0}),
    "a header in the table": lambda: zip_damaged(table={"offset": 150}),
    "a member on another disk": lambda: zip_damaged(table={"disk": 1}),
    "another magic in the table": lambda: zip_damaged().replace(b"PK\1\2", b"PK\1\3", 1),
    "another magic of zip64": lambda: zip64_of(ZIP_ONE).replace(b"PK\6\6", b"PK\6\5"),
    "another magic of the place of zip64": lambda: zip64_of(ZIP_ONE).replace(
        b"PK\6\7", b"PK\6\x08"),
    "a zip64 on another disk": lambda: zip64_of(ZIP_ONE).replace(b"PK\6\7\0", b"PK\6\7\1"),
    "a part of several": lambda: zip_of(ZIP_ONE, disk=1),
    "a row fewer than there are": lambda: zip_of(ZIP_ONE, Zipped("x"), count=1),
    "a row more than there are": lambda: zip_of(ZIP_ONE, Zipped("x"), count=3),
    "a table cut short": lambda: zip_of(ZIP_ONE, size=50),
    "a table of nothing": lambda: zip_of(ZIP_ONE, size=0),
    "a table that is too long": lambda: zip_of(ZIP_ONE, size=1 << 30),
    "a table elsewhere": lambda: zip_of(ZIP_ONE, offset=0),
    "a table beyond the end": lambda: zip_of(ZIP_ONE, offset=0xFFFFFFF0),
    "a zip64 without its record": lambda: zip_of(ZIP_ONE, count=0xFFFF),
    "a row whose extra field is cut off": lambda: zip_of(ZIP_ONE._replace(extra=b"x" * 10)).replace(
        b"x" * 10, b"x"),
}  # fmt: skip


@pytest.mark.parametrize("case", ZIP_DAMAGED)
def test_a_damaged_zip_is_refused(box: Box, case: str) -> None:
    assert box.inspect(zip_damaged())
    archive = ZIP_DAMAGED[case]()
    if case not in ("nothing but the last record", "only folders"):
        with pytest.raises(BundleRefused):
            run(box, archive, "true")
    assert refused(box, archive)


def test_two_zips_in_one_file_are_refused(box: Box) -> None:
    # Of the same shape: what the last record says fits the first, and means the second.
    archive = zip_of(Zipped("a", b"1")) + zip_of(Zipped("a", b"2"))
    assert refused_by_both(box, archive) == "The zip archive is damaged."


def test_a_member_of_a_zip_that_is_damaged_is_named(box: Box) -> None:
    for case in ("damaged deflate", "deflate without an end", "a wrong checksum"):
        assert refused(box, ZIP_DAMAGED[case]()) == "'x' in the zip archive is damaged."


def zip_mutated(dice: random.Random) -> bytes:
    """Random changes to the headers more than to the content, which a checksum covers."""
    changed = bytearray(ZIP_GOOD)
    marks = [m.start() for m in re.finditer(rb"PK(?:\x01\x02|\x03\x04|\x05\x06)", ZIP_GOOD)]
    for _ in range(dice.choice((1, 1, 1, 2))):
        at = min(dice.choice(marks) + dice.randrange(46), len(changed) - 1)
        size = dice.choice((1, 2, 4))
        kind = dice.randrange(5)
        if kind == 0:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            changed[at : at + size] = dice.choice((b"\xff" * size, bytes(size), b"\1" * size))
        elif kind == 2:
            changed[at : at + size] = dice.randbytes(size)
        elif kind == 3:
            del changed[at : at + size]
        else:
            return mutated(bytes(changed), dice)
    return bytes(changed)


@pytest.mark.parametrize("seed", range(3))
def test_a_mutated_zip_is_refused_or_unpacked_as_it_was_inspected(box: Box, seed: int) -> None:
    dice = random.Random(seed)
    assert sum(is_unpacked_as_inspected(box, zip_mutated(dice)) for _ in range(120)) > 5


def test_the_first_bytes_say_what_is_a_zip_and_what_a_tar(box: Box) -> None:
    tar = tarred(("PKGBUILD", b"1"), ("PK\x03", b"2"), mode="w")
    assert paths(box.inspect(tar)) == ["PKGBUILD", "PK\x03"]
    assert "holds no files" in refused(box, zip_of())
    assert refused(box, b"PK\x07\x08" + ZIP_GOOD)
