"""PB: parser bombs in the headers of archives. Every reader has been brought down by numbers that
its headers say: lengths below zero, chains without end, tables that point at themselves."""

import contextlib
import gzip
import io
import json
import os
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

from sandbox import unpack
from tests.attacks.arena import Attacker
from tests.attacks.wire import (
    MIB,
    Entry,
    Lazy,
    each,
    made,
    packed,
    quick_enough,
    refused,
    sent,
    tar_of,
)

# Says every file below the work directory, with its size.
TREE = b"""
import json, os
found = {}
for top, _, names in os.walk(b"."):
    for name in names:
        path = os.path.join(top, name)[2:]
        found[ascii(os.fsdecode(path))[1:-1]] = os.path.getsize(path)
print(json.dumps(found))
"""
MAIN = Entry("main.py", TREE)
Tree = dict[str, int] | None  # what must be there beside main.py; None: refused
Case = tuple[str, Lazy, Tree]
MOST_SECONDS = 3
END = bytes(1024)


def tried(attacker: Attacker, form: str, cases: Iterable[Case]) -> int:
    """Each as an upload: refused with a sentence, or run with the files that it must have. Within
    the time; where the machine was too busy, which is then said, again."""

    def check(case: tuple[Lazy, Tree]) -> None:
        content, expected = made(case[0]), case[1]
        raw = packed(form, content, {"entrypoint": "main.py", "interpreter": "python3"})
        for _ in range(3):
            began = time.monotonic()
            if expected is None:
                answer = attacker.exchange(raw)
                in_time = quick_enough(time.monotonic() - began, MOST_SECONDS)
                if b" 503 " in answer[:20] and not in_time:
                    continue
                refused(answer, reason="invalid_upload")
            else:
                tree = ran(attacker, raw)
                assert tree == {"main.py": len(TREE), **expected}, tree
                in_time = quick_enough(time.monotonic() - began, MOST_SECONDS)
            if in_time:
                return
        raise AssertionError("it took too long, three times")

    return each([(name, (content, expected)) for name, content, expected in cases], check)


def ran(attacker: Attacker, raw: bytes) -> Any:
    """The tree that the job has seen."""
    answer = sent(attacker, raw)
    assert answer.status == 200, answer
    attacker.delete(answer.json["job_id"])
    assert answer.json["status"] == "completed", answer.json
    return json.loads(answer.json["logs"]["stdout"])


# --- tar ----------------------------------------------------------------------------------------


def head(
    name: bytes = b"a",
    size: bytes | int = 0,
    kind: bytes = b"0",
    mtime: bytes = b"00000000000\0",
    more: tuple[int, bytes] = (0, b""),
) -> bytes:
    """A header of tar whose checksum is right, whatever else is."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:124] = b"0000644\0" + b"0000000\0" * 2
    block[124:136] = b"%011o\0" % size if isinstance(size, int) else size
    block[136:148] = mtime
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    at, content = more
    block[at : at + len(content)] = content
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def member(name: bytes, content: bytes, kind: bytes = b"0") -> bytes:
    return head(name, len(content), kind) + padded(content)


def record(key: bytes, value: bytes) -> bytes:
    """A record of a pax header, which begins with its own length."""
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest) + 1
    while len(b"%d" % size) + len(rest) != size:
        size = len(b"%d" % size) + len(rest)
    return b"%d" % size + rest


def pax(*pairs: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    return member(b"pax", b"".join(record(*pair) for pair in pairs), kind)


PROGRAM = member(b"main.py", TREE)
BINARY = {  # sizes in base 256, and numbers that are none
    "minus one": b"\xff" * 12,
    "minus 512": b"\xff" * 10 + b"\xfe\0",
    "minus 2 to the 63": b"\xff\xff\xff\xff\x80" + bytes(7),
    "2 to the 63": b"\x80\0\0\0\x7f" + b"\xff" * 7,
    "2 to the 88": b"\x80" + b"\xff" * 11,
    "1 TB": b"\x80" + (1 << 40).to_bytes(11, "big"),
    "signed": b"-0000001000\0",
    "hexadecimal": b"0x000000010\0",
    "nines": b"99999999999\0",
    "octal of 8 GB": b"77777777777\0",
}


def test_no_size_of_a_tar_leads_its_reader_back_or_away(attacker: Attacker) -> None:
    """PB-01. Negative, huge and odd sizes, for a member, a long name and a pax header, in front of
    the program and behind it."""
    cases: list[Case] = []
    for name, size in BINARY.items():
        odd = head(size=size)
        cases.append((f"{name}, first", odd + PROGRAM + END, None))
        cases.append((f"{name}, last", PROGRAM + odd + END, None))
    for name in ("minus 512", "2 to the 63", "1 TB"):
        for kind in b"LKxg":
            odd = head(size=BINARY[name], kind=bytes([kind]))
            cases.append((f"{name}, {kind:c}", odd + PROGRAM + END, None))
    cases.append(("in spaces", head(b"b", b"          5\0") + padded(b"hello") + PROGRAM + END,
                  {"b": 5}))  # fmt: skip
    assert tried(attacker, "tar.gz", [(n, gzip.compress(made(c), 1), t) for n, c, t in cases]) == 33


def long_name(content: bytes, kind: bytes = b"L") -> bytes:
    return member(b"././@LongLink", content, kind)


def test_long_names_neither_pile_up_nor_cut_names_off(attacker: Attacker) -> None:
    """PB-02. Chains of long names and links, names that hold NULs or nothing, are as long as the
    upload, or are never followed by what they name."""
    chain = long_name(b"x\0")
    cases: list[Case] = [
        ("2,000 in a row", gzip.compress(chain * 2000 + PROGRAM + END, 1), None),
        ("200,000 in a row", lambda: gzip.compress(chain * 200) * 1000, None),
        ("2,000 links in a row", gzip.compress(long_name(b"x\0", b"K") * 2000 + PROGRAM, 1), None),
        ("of 4 exabytes", gzip.compress(head(size=b"\x80\0\0\0\x40" + bytes(7), kind=b"L")), None),
        ("of 90 MB", lambda: gzip.compress(head(size=90 * MIB, kind=b"L"))
         + gzip.compress(b"n" * MIB) * 90, None),
        ("too long", gzip.compress(long_name(b"d/" * 600 + b"f\0") + PROGRAM + END), None),
        ("before nothing", gzip.compress(PROGRAM + chain + END), None),
        ("that leads out", gzip.compress(long_name(b"../../x\0") + member(b"a", b"") + END), None),
        ("with a NUL", gzip.compress(long_name(b"b\0../x\0") + member(b"a", b"1") + PROGRAM + END),
         {"b": 1}),
        ("of nothing", gzip.compress(long_name(b"") + member(b"a", b"1") + PROGRAM + END), None),
        ("two", gzip.compress(long_name(b"b\0") + long_name(b"c\0") + member(b"a", b"1") + PROGRAM
                              + END), {"b": 1}),
        ("around pax", gzip.compress(long_name(b"b\0") + pax((b"comment", b"x")) + chain
                                     + member(b"a", b"1") + PROGRAM + END), {"b": 1}),
    ]  # fmt: skip
    assert tried(attacker, "tar.gz", cases) == len(cases)


def raw_pax(content: bytes) -> bytes:
    return member(b"pax", content, b"x")


def test_no_record_of_pax_says_more_than_its_header(attacker: Attacker) -> None:
    """PB-03. Lengths that are none, sizes and times that no number is, paths that lead out, in own
    and global headers, chains of them, and sparse keys on a whole file: refused; or harmless, and
    then what was inspected is what lies there."""
    one = member(b"a", b"1")
    headers: dict[str, tuple[bytes, Tree]] = {
        "chain": (pax((b"comment", b"x")) * 2000, None),
        "length 0": (raw_pax(b"0 a=b\n"), None),
        "negative length": (raw_pax(b"-6 a=b\n"), None),
        "length beyond": (raw_pax(b"999999 a=b\n"), None),
        "5,000 digits": (raw_pax(b"1" * 5000 + b" a=b\n"), None),
        "no newline": (raw_pax(b"1" * 200_000), None),
        "no equals sign": (raw_pax(b"6 abc\n"), None),
        "size -512": (pax((b"size", b"-512")), None),
        "size of 4 exabytes": (pax((b"size", b"%d" % (1 << 62))), None),
        "path with NUL": (pax((b"path", b"b\0c")), None),
        "path out": (pax((b"path", b"../../x")), None),
        "path of the root": (pax((b"path", b"/etc/x")), None),
        "path of the program": (pax((b"path", b"main.py")), None),
        "global path out": (pax((b"path", b"../../x"), kind=b"g"), None),
        "global size": (pax((b"size", b"-1"), kind=b"g"), None),
        "link path": (pax((b"linkpath", b"/etc/passwd")), {"a": 1}),
        "comment of 2 MB": (pax((b"comment", b"x" * 2 * MIB)), None),
        "sparse name": (pax((b"GNU.sparse.name", b"../x"), (b"GNU.sparse.map", b"0,1"),
                            (b"GNU.sparse.size", b"1")), None),
        "time nan": (pax((b"mtime", b"nan")), None),
        "time without end": (pax((b"mtime", b"1e999")), None),
        "time before time": (pax((b"mtime", b"-1")), {"a": 1}),
        "owner": (pax((b"uid", b"0"), (b"uname", b"root"), (b"SCHILY.xattr.user.x", b"y")),
                  {"a": 1}),
    }  # fmt: skip
    cases: list[Case] = [
        (name, gzip.compress(header + one + PROGRAM + END, 1), tree)
        for name, (header, tree) in headers.items()
    ]
    cases.append(("comment of 50 MB", lambda: gzip.compress(head(size=50 * MIB, kind=b"x"))
                  + gzip.compress(b"x" * MIB) * 50, None))  # fmt: skip
    assert tried(attacker, "tar.gz", cases) == len(cases)


def inspected(content: bytes) -> dict[str, int]:
    """What the inspection of a harmless archive says, by path, as the tree has it."""
    fd = os.memfd_create("archive", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        members = unpack.inspect(fd, 100 * MIB)["members"]
    finally:
        os.close(fd)
    return {ascii(path)[1:-1]: size for path, size, *_ in members}


def test_what_readers_differ_about_is_one_thing_everywhere(attacker: Attacker) -> None:
    """PB-01, PB-03. Numbers that some readers take and others refuse, and names that are no text:
    refused; or inspected, hashed and unpacked as the same."""

    def check(headers: bytes) -> None:
        content = gzip.compress(headers + PROGRAM + END)
        raw = packed("tar.gz", content, {"entrypoint": "main.py", "interpreter": "python3"})
        answer = sent(attacker, raw)
        if answer.status != 200:
            refused(attacker.exchange(raw), reason="invalid_upload")
            return
        attacker.delete(answer.json["job_id"])
        assert json.loads(answer.json["logs"]["stdout"]) == inspected(content)
        again = sent(attacker, raw)
        attacker.delete(again.json["job_id"])
        assert again.json["job_hash"] == answer.json["job_hash"]

    hello = member(b"a", b"hello")
    cases = {
        "size with plus": head(size=b"+0000001000\0") + bytes(512),
        "size with underscore": head(size=b"0000_001000\0") + bytes(512),
        "link of minus one": head(size=BINARY["minus one"], kind=b"K") + hello,
        "pax of minus one": head(size=BINARY["minus one"], kind=b"x") + hello,
        "global of minus one": head(size=BINARY["minus one"], kind=b"g") + hello,
        "size of 1e3": pax((b"size", b"1e3")) + hello,
        "size of 5,000 digits": pax((b"size", b"9" * 5000)) + hello,
        "size of nothing": pax((b"size", b"")) + hello,
        "raw name": pax((b"hdrcharset", b"BINARY"), (b"path", b"b\xff\xfe")) + hello,
    }
    assert each(cases.items(), check) == len(cases)


def test_a_sparse_member_is_refused_before_its_map_is_read(attacker: Attacker) -> None:
    """PB-04. Maps without end, of twenty thousand entries, in chains of blocks, with sizes beyond
    all and offsets before the beginning, in each of the four ways to write one."""
    new = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"n"),
           (b"GNU.sparse.realsize", b"10"))  # fmt: skip
    extended = head(b"s", 512, b"S", more=(482, b"\1"))
    block = bytes(504) + b"\1" + bytes(7)
    headers = {
        "map without end": pax(*new) + member(b"s", padded(b"999999999\n1\n")),
        "map cut off": pax(*new) + head(b"s", 512) + padded(b"9\n1\n"),
        "map of nothing": pax(*new) + member(b"s", bytes(512)),
        "negative entries": pax(*new) + member(b"s", padded(b"-1\n-512\n")),
        "20,000 entries": pax((b"GNU.sparse.map", b",".join([b"1"] * 20_000)),
                              (b"GNU.sparse.size", b"10")) + member(b"s", b"x"),
        "negative map": pax((b"GNU.sparse.map", b"-512,512"), (b"GNU.sparse.size", b"1"))
        + member(b"s", b"x"),
        "pairs": pax(*[(b"GNU.sparse.offset", b"1"), (b"GNU.sparse.numbytes", b"1")] * 2000,
                     (b"GNU.sparse.size", b"1")) + member(b"s", b"x"),
        "1 exabyte": pax((b"GNU.sparse.map", b"0,1"), (b"GNU.sparse.size", b"%d" % (1 << 60)))
        + member(b"s", b"x"),
        "old": head(b"s", 0, b"S") ,
        "old, chained": extended + block * 2000 + bytes(512),
        "old, chained without end": extended + block * 20,
        "old, 1 exabyte": head(b"s", 0, b"S", more=(483, b"\x80" + (1 << 60).to_bytes(11, "big"))),
        "old, negative": head(b"s", 512, b"S", more=(386, b"\xff" * 24)) + bytes(512),
    }  # fmt: skip
    cases: list[Case] = [
        (name, gzip.compress(header + PROGRAM + END, 1), None) for name, header in headers.items()
    ]
    cases.append(("without the rest", gzip.compress(extended + block * 20), None))
    assert tried(attacker, "tar.gz", cases) == len(cases)


# --- gzip ---------------------------------------------------------------------------------------

TAR = tar_of([MAIN])
GZIP = gzip.compress(TAR)
_PLAIN = b"\x1f\x8b\x08"


def flagged(flags: int, fields: bytes) -> bytes:
    """The same stream with other flags, and what they announce."""
    return _PLAIN + bytes([flags]) + GZIP[4:10] + fields + GZIP[10:]


def stored(content: bytes, empty: int) -> bytes:
    """A stream of blocks that are not packed, after so many that are empty."""
    body = b"\0\0\0\xff\xff" * empty
    for at in range(0, len(content), 65535):
        piece = content[at : at + 65535]
        body += b"\0" + struct.pack("<HH", len(piece), len(piece) ^ 0xFFFF) + piece
    trailer = struct.pack("<LL", zlib.crc32(content), len(content))
    return GZIP[:10] + body + b"\1\0\0\xff\xff" + trailer


def test_the_header_of_gzip_costs_nothing_and_hides_nothing(attacker: Attacker) -> None:
    """PB-05. Names and comments without an end, extra fields, wrong checksums and lengths, a
    million empty members, twenty thousand empty blocks, and what follows the end."""
    crc, size = GZIP[-8:-4], GZIP[-4:]
    body = GZIP[:-8]
    cases: list[Case] = [
        ("name without end", lambda: flagged(8, b"a" * (2 * MIB))[: 2 * MIB], None),
        ("comment without end", lambda: flagged(16, b"a" * (2 * MIB))[: 2 * MIB], None),
        ("long name", flagged(8, b"a" * 100_000 + b"\0"), {}),
        ("name that is a zip", flagged(8, b"PK\3\4\0"), {}),
        ("extra field", flagged(4, b"\xff\xff" + bytes(65535)), {}),
        ("extra field, cut off", flagged(4, b"\xff\xff")[:-50], None),
        ("another method", b"\x1f\x8b\x07" + GZIP[3:], None),
        ("CRC wrong", body + bytes(4) + size, None),
        ("length wrong", body + crc + bytes(4), None),
        ("no trailer", body, None),
        ("garbage", GZIP + b"garbage", None),
        ("garbage and a member", GZIP + b"garbage" + GZIP, None),
        ("zeros behind", GZIP + bytes(3 * MIB), {}),
        ("a member of another thing", GZIP + gzip.compress(b"text " * 200), {}),
        ("20,000 empty members", gzip.compress(b"") * 20_000 + GZIP, {}),
        ("a million empty members", lambda: gzip.compress(b"") * 1_000_000, None),
        ("20,000 empty blocks", stored(TAR, 20_000), {}),
        ("stored", stored(TAR, 0), {}),
        ("a reserved block", GZIP[:10] + b"\7" + bytes(100), None),
        ("a length that is not its twin", GZIP[:10] + b"\1\5\0\0\0hello" + bytes(8), None),
    ]
    assert tried(attacker, "tar.gz", cases) == len(cases)


# --- zip ----------------------------------------------------------------------------------------


class Row:
    """A member of a zip, whose two headers may say different things."""

    def __init__(self, name: bytes, content: bytes = b"", **fields: Any) -> None:
        self.name, self.content = name, content
        self.local: dict[str, Any] = {
            "crc": zlib.crc32(content),
            "packed": len(content),
            "size": len(content),
        }
        self.local |= {"flags": 0, "method": 0, "name": name, "extra": b""}
        self.table: dict[str, Any] = {
            **self.local,
            "maker": 3,
            "attributes": 0o100644 << 16,
            "offset": None,
        }
        self.table |= {"disk": 0, "date": 0, "comment": b"", "name": name}
        self.after = b""
        for key, value in fields.items():
            side, _, field = key.partition("_")
            if side == "both":
                self.local[field] = self.table[field] = value
            elif field:
                getattr(self, side)[field] = value
            else:
                setattr(self, key, value)

    def head(self) -> bytes:
        f = self.local
        return bytes(
            struct.pack("<4s5HLLLHH", b"PK\3\4", 20, f["flags"], f["method"], 0, 0, f["crc"],
                        f["packed"], f["size"], len(f["name"]), len(f["extra"]))
            + f["name"] + f["extra"]
        )  # fmt: skip

    def row(self, offset: int) -> bytes:
        f = self.table
        where = offset if f["offset"] is None else f["offset"]
        return bytes(
            struct.pack("<4sBB5H3L5H2L", b"PK\1\2", 20, f["maker"], 20, f["flags"], f["method"], 0,
                        f["date"], f["crc"], f["packed"], f["size"], len(f["name"]),
                        len(f["extra"]), len(f["comment"]), f["disk"], 0, f["attributes"], where)
            + f["name"] + f["extra"] + f["comment"]
        )  # fmt: skip


def end(count: int, size: int, offset: int, comment: bytes = b"", length: int = -1) -> bytes:
    length = len(comment) if length < 0 else length
    return (
        struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, offset, length) + comment
    )  # fmt: skip


def zipped(*rows: Row, program: bool = True, comment: bytes = b"", front: bytes = b"") -> bytes:
    """A zip of these rows and the program."""
    body, table = bytearray(front), b""
    for row in [*rows, *([Row(b"main.py", TREE)] if program else [])]:
        table += row.row(len(body))
        body += row.head() + row.content + row.after
    return bytes(body) + table + end(len(rows) + program, len(table), len(body), comment)


PLAIN = zipped()
TABLE_AT = PLAIN.index(b"PK\1\2")
TABLE = PLAIN[TABLE_AT:-22]
END64 = struct.Struct("<4sQHHLLQQQQ")


def zipped64(
    *, length: int = 44, count: int = 1, size: int = len(TABLE), offset: int = TABLE_AT,
    place: int | None = None, plain: bytes = b"", disk: int = 0,
) -> bytes:  # fmt: skip
    """The plain zip with a larger end record, and a note where that is."""
    at = TABLE_AT + len(TABLE)
    record = END64.pack(b"PK\6\6", length, 45, 45, disk, disk, count, count, size, offset)
    note = struct.pack("<4sLQL", b"PK\6\7", 0, at if place is None else place, 1)
    return PLAIN[:at] + record + note + (plain or end(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF))


def test_a_zip_has_one_end_and_so_one_table(attacker: Attacker) -> None:
    """PB-06. Comments full of end records, an end record inside the last member, two of them, what
    follows, and lengths that are off by one: one table by one rule, the same that Python's
    reader takes if it takes any; or none."""
    other = zipped(Row(b"other", b"1"))
    tail = PLAIN[-22:]
    cases: list[Case] = [
        ("usual", PLAIN, {}),
        ("3,000 in the comment", zipped(comment=(tail[:18] + b"\0\0\0\0") * 2978), None),
        ("in the comment, not to the end", zipped(comment=tail + b"text"), {}),
        ("in the last member", zipped(Row(b"z", tail), Row(b"y", tail * 3)), {"z": 22, "y": 66}),
        ("the later is wrong", PLAIN + end(1, 5, 5), None),
        ("the later is of another", PLAIN + other, None),
        ("comment one short", PLAIN[:-2] + b"\1\0", None),
        ("comment one long", PLAIN[:-2] + b"\0\0" + b"x", None),
        ("comment of 64 KiB", zipped(comment=b"c" * 65535), {}),
        ("comment of more", zipped(comment=b"c" * 65535) + b"c", None),
        ("zeros behind", PLAIN + bytes(512), {}),
        ("more zeros behind", PLAIN + bytes(70_000), None),
        ("no rows", end(0, 0, 0), None),
        ("one row too few", PLAIN[:-22] + end(0, len(TABLE), TABLE_AT), None),
        ("one row too many", PLAIN[:-22] + end(2, len(TABLE), TABLE_AT), None),
        ("table one short", PLAIN[:-22] + end(1, len(TABLE) - 1, TABLE_AT), None),
        ("table one early", PLAIN[:-22] + end(1, len(TABLE), TABLE_AT - 1), None),
        ("many rows", PLAIN[:-22] + end(0xFFFE, len(TABLE), TABLE_AT), None),
    ]
    assert tried(attacker, "zip", cases) == len(cases)
    agreed = 0
    for name, content, tree in cases:
        if tree is not None:
            with contextlib.suppress(zipfile.BadZipFile):
                names = zipfile.ZipFile(io.BytesIO(made(content))).namelist()
                assert sorted(names) == sorted(["main.py", *tree]), name
                agreed += 1
    assert agreed >= 3


def test_the_larger_records_of_zip_lead_nowhere_else(attacker: Attacker) -> None:
    """PB-07. Notes that point past the file, before it or into a member, lengths and counts of
    2 to the 63 and more, extra fields that are too short, doubled, or behind 65,000 bytes."""
    far = (1 << 63) + 5
    huge = (1 << 64) - 1

    def row(extra: bytes, **fields: Any) -> bytes:
        return zipped(Row(b"z", b"12345", table_extra=extra, **fields))

    def field(*values: int, kind: int = 1) -> bytes:
        return struct.pack(f"<HH{len(values)}Q", kind, 8 * len(values), *values)

    full = {"table_size": 0xFFFFFFFF}
    cases: list[Case] = [
        ("usual", zipped64(), {}),
        ("only some fields", zipped64(plain=end(0xFFFF, len(TABLE), TABLE_AT)), {}),
        ("unasked", zipped64(plain=end(1, len(TABLE), TABLE_AT)), None),
        ("none", PLAIN[:-22] + end(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF), None),
        ("place past the file", zipped64(place=1 << 40), None),
        ("place of 2 to the 63", zipped64(place=far), None),
        ("place of all", zipped64(place=huge), None),
        ("place at the beginning", zipped64(place=0), None),
        ("place in a member", zipped64(place=40), None),
        ("length of 2 to the 63", zipped64(length=1 << 63), None),
        ("length of minus 12", zipped64(length=huge - 11), None),
        ("length one off", zipped64(length=45), None),
        ("count of all", zipped64(count=huge), None),
        ("count of a million", zipped64(count=1_000_000), None),
        ("table of all", zipped64(size=huge), None),
        ("table of 16 MB", zipped64(size=16 << 20), None),
        ("offset of 2 to the 63", zipped64(offset=far), None),
        ("offset and size wrap", zipped64(offset=huge, size=len(TABLE) + TABLE_AT + 1), None),
        ("several parts", zipped64(disk=1), None),
        ("size in its field", row(field(5), **full), {"z": 5}),
        ("behind 60,000 bytes", row(struct.pack("<HH", 9, 60_000) + bytes(60_000) + field(5),
                                    **full), {"z": 5}),
        ("no field", row(b"", **full), None),
        ("a field too short", row(struct.pack("<HHL", 1, 4, 5), **full), None),
        ("a field past the end", row(struct.pack("<HH", 1, 60) + bytes(4), **full), None),
        ("another field past the end", row(struct.pack("<HH", 9, 60_000), **full), None),
        ("size of 2 to the 63", row(field(far), **full), None),
        ("packed of 2 to the 63", row(field(far), table_packed=0xFFFFFFFF), None),
        ("offset of 2 to the 63", row(field(far), table_offset=0xFFFFFFFF), None),
        ("offset of all", row(field(huge), table_offset=0xFFFFFFFF), None),
        ("disk", row(struct.pack("<HHL", 1, 4, 7), table_disk=0xFFFF), None),
    ]  # fmt: skip
    assert tried(attacker, "zip", cases) == len(cases)


def test_members_of_a_zip_share_no_byte(attacker: Attacker) -> None:
    """PB-08. Rows that point to one header, into another member, or into the table; local headers
    that reach over their neighbour; sizes that are said twice, differently: no byte is unpacked
    twice, and none more than was said."""
    bomb = Row(b"z", b"12345")
    quoted = Row(b"q", Row(b"z", b"x" * 50).head() + b"x" * 50)
    deflated = zlib.compress(b"5" * 1000, wbits=-15)
    flat = {"both_method": 8, "both_size": 1000, "both_crc": zlib.crc32(b"5" * 1000)}
    ten_thousand = zipped(bomb, *[Row(b"%d" % n, table_offset=0) for n in range(5000)])
    descriptor = struct.pack("<4sLLL", b"PK\7\x08", zlib.crc32(b"12345"), 5, 5)
    streamed = {"both_flags": 8, "local_crc": 0, "local_packed": 0, "local_size": 0}
    cases: list[Case] = [
        ("two rows, one header", zipped(bomb, Row(b"z2", table_offset=0)), None),
        ("one row twice", zipped(bomb, Row(b"z", table_offset=0)), None),
        ("5,000 rows, one header", ten_thousand, None),
        ("a header in a member", zipped(quoted, Row(b"z", b"x" * 50, table_offset=31)), None),
        ("over its neighbour", zipped(Row(b"z", b"12345", table_packed=60, table_size=60)), None),
        ("one byte over", zipped(Row(b"z", b"12345", table_packed=6, table_size=6)), None),
        ("into the table", zipped(bomb, Row(b"y", table_offset=TABLE_AT)), None),
        ("past the file", zipped(Row(b"y", table_offset=1 << 30)), None),
        ("a local field reaches over", zipped(Row(b"z", b"1", local_extra=b"")).replace(
            b"\1\0\0\0\1\0\0\0\1\0\0\0z1", b"\1\0\0\0\1\0\0\0\1\0\x40\0z1"), None),
        ("local names differ", zipped(Row(b"z", b"1", local_name=b"y")), None),
        ("methods differ", zipped(Row(b"z", b"1", local_method=8)), None),
        ("more than it says", zipped(Row(b"z", deflated, both_packed=len(deflated),
                                         **{**flat, "both_size": 10})), None),
        ("less than it says", zipped(Row(b"z", deflated, both_packed=len(deflated),
                                         **{**flat, "both_size": 1001})), None),
        ("as much as it says", zipped(Row(b"z", deflated, both_packed=len(deflated), **flat)),
         {"z": 1000}),
        ("streamed", zipped(Row(b"z", b"12345", after=descriptor, **streamed)), {"z": 5}),
        ("streamed, no word after", zipped(Row(b"z", b"12345", **streamed)), {"z": 5}),
        ("checksum wrong", zipped(Row(b"z", b"12345", table_crc=1)), None),
        ("encrypted in one", zipped(Row(b"z", b"12345", local_flags=1)), None),
        ("stored, packed smaller", zipped(Row(b"z", b"12345", table_packed=3)), None),
    ]  # fmt: skip
    assert tried(attacker, "zip", cases) == len(cases)


def test_a_name_in_a_zip_is_one_place(attacker: Attacker) -> None:
    """PB-09. Two spellings of one name, fields that say another, folders with content and files
    that are folders, backslashes, drives, names and paths beyond their length, impossible dates."""
    unicode_path = struct.pack("<HHBL", 0x7075, 9, 1, zlib.crc32(b"z")) + b"../x"
    folder = (stat.S_IFDIR | 0o755) << 16
    fifo = (stat.S_IFIFO | 0o644) << 16
    utf8 = {"both_flags": 0x800}
    cases: list[Case] = [
        ("one name twice", zipped(Row(b"z", b"1"), Row(b"z", b"2")), None),
        ("one name, two spellings", zipped(Row("é".encode(), b"1", **utf8),
                                           Row(b"\x82", b"2", table_maker=0)), None),
        ("one place, two ways", zipped(Row(b"d/z", b"1"), Row(b"./d//z", b"2")), None),
        ("a field with another name", zipped(Row(b"z", b"1", table_extra=unicode_path)),
         {"z": 1}),
        ("UTF-8 that is none", zipped(Row(b"\xff\xfe", b"1", **utf8)), {"\\udcff\\udcfe": 1}),
        ("folder", zipped(Row(b"d/"), Row(b"d/z", b"1")), {"d/z": 1}),
        ("folder with content", zipped(Row(b"d/", b"1")), None),
        ("folder by its mode", zipped(Row(b"d", table_attributes=folder), Row(b"d/z", b"1")),
         {"d/z": 1}),
        ("folder by its mode, with content",
         zipped(Row(b"d", b"1", table_attributes=folder)), None),
        ("file and folder", zipped(Row(b"d", b"1"), Row(b"d/", b"")), None),
        ("below a file", zipped(Row(b"d", b"1"), Row(b"d/z", b"1")), None),
        ("pipe", zipped(Row(b"z", b"", table_attributes=fifo)), None),
        ("backslashes of DOS", zipped(Row(rb"d\z", b"1", table_maker=0)), {"d/z": 1}),
        ("backslashes that lead out", zipped(Row(rb"..\z", b"1", table_maker=0)), None),
        ("both slashes", zipped(Row(rb"d\e/z", b"1", table_maker=0)), None),
        ("backslash of Unix", zipped(Row(rb"..\z", b"1")), None),
        ("drive", zipped(Row(b"c:z", b"1")), None),
        ("NUL", zipped(Row(b"z\0.txt", b"1")), None),
        ("no name", zipped(Row(b"", b"1")), None),
        ("65,535 bytes", zipped(Row(b"n" * 65535, b"1")), None),
        ("65 folders", zipped(Row(b"d/" * 65 + b"z", b"1")), None),
        ("the 0th of month 0", zipped(Row(b"z", b"1", table_date=0)), {"z": 1}),
        ("the 31st of month 15", zipped(Row(b"z", b"1", table_date=0xFFFF)), {"z": 1}),
        ("2107", zipped(Row(b"z", b"1", table_date=127 << 9 | 12 << 5 | 31)), {"z": 1}),
    ]  # fmt: skip
    assert tried(attacker, "zip", cases) == len(cases)


# --- more than one thing ------------------------------------------------------------------------


def test_what_is_two_things_is_read_as_one(attacker: Attacker) -> None:
    """PB-10. Archives that begin like another, hold another, end like another, or are called like
    one: the first bytes say what it is, a name that says otherwise is refused, and what was
    inspected is what is unpacked."""
    hidden = tar_of([Entry("hidden", b"1")])
    named = member(b"PK\3\4", b"1")
    cases: list[tuple[str, str, Lazy, Tree]] = [
        ("a tar called zip", "zip", TAR, None),
        ("a gzip called zip", "zip", GZIP, None),
        ("a zip called tar.gz", "tar.gz", PLAIN, None),
        ("a tar that begins like a zip", "tar", named + PROGRAM + END, None),
        ("a zip with a tar behind", "zip", PLAIN + TAR, None),
        ("a zip with a tar in front", "zip", TAR + PLAIN, None),
        ("a zip behind a program", "zip", b"#!/bin/sh\n" + PLAIN, None),
        ("a zip that moved", "zip", zipped(front=b"PK\3\4" + bytes(60)), {}),
        ("a gzip with a zip behind", "tar.gz", GZIP + PLAIN, None),
        ("a tar behind the end of a tar", "tar.gz", gzip.compress(TAR + hidden), {}),
        ("a zip in a gzip", "tar.gz", gzip.compress(PLAIN), None),
        ("a gzip in a gzip", "tar.gz", gzip.compress(GZIP), None),
    ]
    for form in ("zip", "tar.gz", "tar"):
        chosen = [(name, content, tree) for name, kind, content, tree in cases if kind == form]
        assert tried(attacker, form, chosen) == len(chosen)
