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
import struct
import tarfile
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest

from sandbox import channel
from sandbox.errors import BundleRefused
from sandbox.model import MIB, Bundle, Command, Inspection, Member
from sandbox.runtimes import BASE_ENV
from sandbox.unpack import MAX_DEPTH, MAX_JOB_JSON, MAX_MEMBERS, MAX_PATH_BYTES
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
    bundle = Bundle("tar", channel.memfd("upload", archive), members)
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
    bundle = Bundle("tar", channel.memfd("upload", archive), ())
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
    "a zip": lambda: b"PK\x03\x04" + bytes(1000),
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
    bad = Bundle("tar", channel.memfd("bad", b"no archive"), ())

    async def refuse() -> None:
        for _ in range(15):
            with pytest.raises(BundleRefused):
                await box.sandbox.inspect(bad.fd)
            copy = Bundle("tar", os.dup(bad.fd), ())
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
    compared = 0
    for _ in range(40):
        archive = mutated(GOOD, dice)
        try:
            inspection = box.inspect(archive)
        except BundleRefused:
            with pytest.raises(BundleRefused):
                run(box, archive, "true")
            continue
        ran = run(box, archive, "python3", "-c", LISTING, members=inspection.members)
        assert json.loads(ran.text) == sorted(map(list, inspection.members))
        compared += 1
    assert compared > 5
