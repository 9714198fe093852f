"""Strategies: inputs that are almost right. Bytes without any form are refused at the first door;
what breaks a parser is a good input with one thing wrong in it.
"""

import base64
import gzip
import io
import json
import tarfile
import zipfile
import zlib
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.fuzz.targets import mended

Bytes = SearchStrategy[bytes]


def joined(*fragments: bytes, most: int = 12) -> Bytes:
    """Fragments in any order, with a few odd bytes between them."""
    odd = st.sampled_from(fragments) | st.binary(max_size=6)
    return st.lists(st.sampled_from(fragments) | odd, max_size=most).map(b"".join)


@st.composite
def damaged(draw: Any, whole: Bytes, most: int = 3) -> bytes:
    """`whole`, or with some bytes of it changed, cut out, doubled or put in."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.sampled_from((1, 2, 4, 12, 512)))
        kind = draw(st.sampled_from(("set", "cut", "twice", "put", "end")))
        if kind == "set":
            new = draw(st.binary(min_size=1, max_size=4) | st.sampled_from((b"\xff" * 4, bytes(4))))
            data[at : at + len(new)] = new
        elif kind == "cut":
            del data[at : at + size]
        elif kind == "twice":
            data[at:at] = data[at : at + size]
        elif kind == "put":
            data[at:at] = draw(st.binary(min_size=1, max_size=12))
        else:
            del data[at:]
    return bytes(data)


# --- json ------------------------------------------------------------------------------------

_TEXTS = st.text(max_size=12) | st.sampled_from(
    ("main.py", "./main.py", "../x", "/etc", "a\0b", "\ud800", "python3", "bash", "x" * 2000, "")
)
_NUMBERS = (
    st.integers(-5, 400)
    | st.floats()
    | st.sampled_from((10**400, 1 << 63, -1, 0.009, 1e308, True, float("nan"), float("inf")))
)
_VALUES: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=6,
)
_PLAIN = st.text("ab \u00fc\n", max_size=5)
_RIGHT: dict[str, SearchStrategy[Any]] = {
    "entrypoint": st.sampled_from(("main.py", "src/run.sh", "./main.py")),
    "interpreter": st.sampled_from(("python3", "bash")),
    "environment": st.none() | st.sampled_from(("default", "")),
    "args": st.lists(_PLAIN, max_size=3),
    "env": st.dictionaries(st.sampled_from(("A", "_b1")), _PLAIN, max_size=2),
    "stdin": _PLAIN,
    "stdin_live": st.booleans(),
    "outputs": st.lists(st.sampled_from(("*.png", "out/", "**/a[", "./x")), max_size=3),
    "timeout": st.integers(1, 300),
    "memory_mb": st.integers(16, 512),
    "cpu_seconds": st.floats(0.01, 300),
    "ttl": st.integers(1, 300),
    "gpu": st.none() | st.just({"required": False}),
    "requirements": st.just(""),
}
_ODD = st.sampled_from(("a\0b", "\ud800", "../x", "/etc")) | _TEXTS
_SHAPES: dict[str, SearchStrategy[Any]] = {
    "args": st.lists(_ODD, min_size=1, max_size=2),
    "outputs": st.lists(_ODD, min_size=1, max_size=2),
    "stdin": _ODD,
    "env": st.dictionaries(
        st.sampled_from(("A", "LD_X", "A B", "PATH")) | _TEXTS, _TEXTS, min_size=1, max_size=2
    ),
    **dict.fromkeys(("timeout", "memory_mb", "cpu_seconds", "ttl"), _NUMBERS),
}


@st.composite
def objects(draw: Any) -> bytes:
    """A manifest that is right but for one value, or a key that is there twice or unknown."""
    names = draw(st.lists(st.sampled_from(sorted(_RIGHT)), max_size=6, unique=True))
    table = {name: draw(_RIGHT[name]) for name in names}
    if draw(st.integers(0, 3)):
        odd = draw(st.sampled_from(sorted(_SHAPES)) | st.sampled_from(sorted(_RIGHT)))
        table[odd] = draw(_SHAPES.get(odd, _ODD) if draw(st.integers(0, 3)) else _VALUES)
    pairs = list(table.items())
    if not draw(st.integers(0, 9)):
        pairs.append((draw(_TEXTS | st.sampled_from(sorted(_RIGHT))), draw(_VALUES)))
    text = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs)
    return f"{{{text}}}".encode()


manifests = st.one_of(
    objects(),
    damaged(objects(), most=1),
    damaged(
        st.one_of(
            st.tuples(objects() | st.just(b"-"), objects()).map(b"\0".join),
            _VALUES.map(lambda value: json.dumps(value).encode()),
            st.sampled_from((b"[" * 3000, b'{"a":' * 3000, b'{"timeout":' + b"9" * 5000 + b"}")),
        ),
        most=1,
    ),
)

_NAMES = st.text(st.characters(), max_size=8) | st.sampled_from(
    ("main.py", "a/b", "a", "./a", "c:x", "a//b/./c", "a\\b", "../a", "x" * 256, "d/" * 70 + "f")
)
_FILE = st.text(max_size=20) | st.binary(max_size=20).map(
    lambda data: {"base64": base64.b64encode(data).decode()}
)


@st.composite
def _json_bodies(draw: Any) -> bytes:
    body: dict[str, Any] = {"files": draw(st.dictionaries(_NAMES, _FILE | _VALUES, max_size=4))}
    text = json.dumps(body, ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        text = text[:-1] + ',"manifest":' + draw(objects()).decode() + "}"
    return text.encode("utf-8", "surrogatepass")


json_bodies = damaged(_json_bodies(), most=1)

run_forms = st.tuples(
    joined(b"interpreter=", b"bash", b"python3", b"&", b"args=a", b"timeout=", b"9", b"1.5",
           b"entrypoint=main.py", b"wait=1", b"%1b=1&%1b=2&", b"cpu_seconds=",
           b"%00", b"%ff", b"outputs=*"),
    joined(b"#!", b"/usr/bin/env", b" -S ", b"node", b"/bin/bash", b"\n", b"print(1)", b" "),
).map(b"\n".join)  # fmt: skip


# --- multipart -------------------------------------------------------------------------------

_HEADERS = (
    b'Content-Disposition: form-data; name="files"; filename="a.py"',
    b"Content-Disposition: form-data; name=files; filename=b/c",
    b"Content-Disposition: form-data; name=files; filename=a; filename*=UTF-8''%e2%82%ac",
    b"Content-Disposition: form-data; name=files; filename*=UTF-8''%ff%41",
    b'content-disposition: form-data; name="manifest"',
    b'Content-Disposition: form-data; name="comment"',
    b'Content-Disposition: form-data; name="files"',
    b"Content-Type: text/plain",
    b"Content-Transfer-Encoding: binary",
    b"Content-Transfer-Encoding: base64",
)


@st.composite
def _multiparts(draw: Any) -> bytes:
    boundary = draw(st.sampled_from((b"xYx", b"a:b=c", b"-", b"x" * 70)))
    line = b"--" + boundary
    near = st.sampled_from((b"\r\n", line, line[:-1], b"\r\n" + line[:-1], b"\r", b"--", line[2:]))
    body = b""
    for _ in range(draw(st.integers(0, 4))):
        heads = draw(st.lists(st.sampled_from((*_HEADERS, line)), max_size=3))
        if draw(st.integers(0, 3)):
            heads = [draw(st.sampled_from(_HEADERS[:5]))]
        content = b"".join(draw(st.lists(near | st.binary(max_size=9), max_size=5)))
        body += line + b"\r\n" + b"\r\n".join(heads) + b"\r\n\r\n" + content + b"\r\n"
    end = draw(st.sampled_from((b"--\r\n", b"--", b"", b"\r\n")))
    return b'multipart/form-data; boundary="' + boundary + b'"\n' + body + line + end


multiparts = damaged(_multiparts(), most=1)


class Sent(NamedTuple):
    """A form as a client would send it."""

    boundary: bytes
    files: list[tuple[str, bytes]]

    @property
    def body(self) -> bytes:
        line = b"--" + self.boundary
        parts = [
            line + b'\r\nContent-Disposition: form-data; name="files"; filename="'
            + name.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"\r\n\r\n' + content
            for name, content in self.files
        ]  # fmt: skip
        return b"\r\n".join([*parts, line + b"--\r\n"])


_BOUNDARY_LETTERS = st.sampled_from("0aZ'()+_,-./:=?")
sent_forms = st.builds(
    Sent,
    st.text(_BOUNDARY_LETTERS, min_size=1, max_size=70).map(str.encode),
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1),
            joined(b"\r\n--", b"0", b"\r", b"--", b"\n"),
        ),
        min_size=1, max_size=5,
    ),
).filter(lambda form: form.body.count(b"\r\n--" + form.boundary) == len(form.files))  # fmt: skip


# --- archives --------------------------------------------------------------------------------


class Packed(NamedTuple):
    """An archive, and the files that it was made of: path -> (content, mode, mtime)."""

    files: dict[str, tuple[bytes, int, int]]
    data: bytes


_WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0:"), min_size=1, max_size=9
).filter(lambda word: word not in (".", "..") and len(word.encode()) < 100)
_PLACES = st.lists(_WORDS | st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)
_CONTENTS = st.binary(max_size=50) | st.integers(0, 3000).map(lambda size: b"1" * size)


@st.composite
def _trees(draw: Any) -> dict[str, tuple[bytes, int, int]]:
    files: dict[str, tuple[bytes, int, int]] = {}
    for path in draw(st.lists(_PLACES, min_size=1, max_size=5)):
        nested = any(f"{a}/".startswith(f"{b}/") for k in files for a, b in ((k, path), (path, k)))
        if not nested and path != "job.json":
            mode = draw(st.sampled_from((0o644, 0o755, 0o600, 0o4711, 0o777)))
            files[path] = (draw(_CONTENTS), mode, draw(st.integers(0, 1 << 32)))
    return files or {"a": (b"1", 0o644, 0)}


@st.composite
def tars(draw: Any) -> Packed:
    files = draw(_trees())
    form = draw(st.sampled_from((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for path, (content, mode, mtime) in files.items():
            info = tarfile.TarInfo(draw(st.sampled_from(("", "./"))) + path)
            info.size, info.mode, info.mtime = len(content), mode, mtime
            tar.addfile(info, io.BytesIO(content))
    data = buffer.getvalue().rstrip(b"\0")
    return Packed(files, data + bytes(-len(data) % 512 + 1024))  # without tarfile's 10 KiB of them


def _gzip(packed: Packed) -> Packed:
    return packed._replace(data=gzip.compress(packed.data, mtime=0))


@st.composite
def zips(draw: Any) -> Packed:
    files = draw(_trees())
    buffer = io.BytesIO()
    how = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for path, (content, mode, _) in files.items():
            info = zipfile.ZipInfo(path)
            info.external_attr, info.compress_type = (0o100000 | mode) << 16, how
            archive.writestr(info, content)
        archive.comment = draw(st.binary(max_size=9))
    return Packed(files, buffer.getvalue())


packed = st.one_of(tars(), tars().map(_gzip), zips())


_NUMERALS = (b"7" * 11, b"\x80" + b"\xff" * 7, b"\xff" * 12, b"1", b"-1", b" 12 ", b"", b"9")
_KINDS = (b"1", b"2", b"3", b"5", b"6", b"7", b"x", b"g", b"L", b"K", b"S", b"?")
_TYPE = (156, 1, _KINDS)
_FIELDS = (  # where they are in a header, and what should not be there
    (0, 100, (b"../x", b"/x", b"a", b"a/b", b"./", b"", b"job.json", b"c:x", b"a\\b")),
    (100, 8, _NUMERALS),
    (124, 12, _NUMERALS),
    (136, 12, _NUMERALS),
    _TYPE,
    (157, 100, (b"a", b"/etc/passwd")),
    (257, 8, (b"ustar\x0000", b"ustar  \0", b"")),
    (345, 155, (b"..", b"/", b"a/b")),
)


@st.composite
def _crafted(draw: Any) -> bytes:
    """A tar whose headers say what no packer would, with checksums that are right."""
    data = bytearray(draw(tars()).data)
    for _ in range(draw(st.integers(1, 3))):
        block = draw(st.integers(0, len(data) // 512 - 1)) * 512
        start, length, values = draw(st.sampled_from(_FIELDS) | st.just(_TYPE))
        new = draw(st.sampled_from(values) | st.binary(max_size=length))
        data[block + start : block + start + length] = new.ljust(length, b"\0")[:length]
    return mended(bytes(data))


_TARS = tars().map(lambda packed: packed.data)
tar_files = damaged(_TARS) | _TARS.map(lambda data: data[:-1024] + data)  # each member twice
tar_crafted = _crafted()


def _two_zips() -> bytes:
    """Of one shape, one behind the other: the last record fits both."""
    both = b""
    for content in (b"1", b"2"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(zipfile.ZipInfo("a"), content)
        both += buffer.getvalue()
    return both


_ZIPS = zips().map(lambda packed: packed.data)
zip_files = (damaged(_ZIPS) | st.just(_two_zips())).map(lambda data: data[4:])
zip_recipes = st.binary(min_size=30, max_size=150)


class Bomb(NamedTuple):
    """One header that claims so many bytes, and so many MB of zeros behind it; in gzip."""

    size: int
    kind: bytes
    mb: int

    @property
    def data(self) -> bytes:
        header = bytearray(512)
        header[0:1], header[156:157], header[257:265] = b"b", self.kind, b"ustar\x0000"
        header[124:136] = b"%011o\0" % self.size
        stream = zlib.compressobj(1, wbits=31)
        pieces = [stream.compress(mended(bytes(header)))]
        pieces += [stream.compress(bytes(1 << 20)) for _ in range(self.mb)]
        return b"".join([*pieces, stream.flush()])


_GZIPS = tars().map(_gzip).map(lambda packed: packed.data)
gzip_files = st.one_of(
    damaged(_GZIPS),
    _GZIPS.map(lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]),  # its checksum
    _GZIPS.map(lambda data: data[:-1] + bytes([data[-1] ^ 1])),  # its length
    st.tuples(_GZIPS, st.binary(min_size=1, max_size=9)).map(b"".join),
    st.tuples(_GZIPS, _GZIPS).map(b"".join),
).map(lambda data: data[2:])
_RAW_NAMES = _NAMES.map(lambda name: name.encode("utf-8", "surrogatepass").replace(b"\0", b""))
_LOOSE = st.tuples(
    st.sampled_from((b"../a", b"a/../../b", b"a//./b", b"/a", b"a/", b"d/e")) | _RAW_NAMES,
    st.binary(max_size=9),
)
_LISTED = st.tuples(
    st.just(b"u.tar.gz"),
    st.tuples(
        st.sampled_from((b"----Tar\nPath:", b"----Tar\nPath: ")),
        st.sampled_from((b"a.py", b"../a", b"")) | _RAW_NAMES,
        st.sampled_from((b"\n\n", b"\nSize: 3\n\n", b"\n", b"\nsize: 3\n\n")),
        st.binary(max_size=9) | st.just(b"\n\nSize: 3\n"),
    ).map(b"".join),
)
_PACKED = st.tuples(
    st.sampled_from((b"u.zip", b"u.tar.gz", b"u.tar", b"u.tgz", b"u")),
    damaged(packed.map(lambda packed: packed.data), most=1),
)
uploads = (_LOOSE | _LISTED | _PACKED).map(b"\0".join)


# --- globs -----------------------------------------------------------------------------------

_PATTERN = st.lists(
    st.sampled_from(("a", "b", "c", "/", "*", "**", "**/", "?", "[", "]", "!", "^", "-", "[a-b]",
                     "[!a]", "[]a]", ".", "./", "\\", "{", "|", "\n", "[b/c]")),
    max_size=10,
).map("".join)  # fmt: skip
_SETS = st.lists(
    st.sampled_from(("[a\\]", "[a^]", "[-a]", "[a-]", "[\\d]", "[[a]", "*", "b")), max_size=4
).map("".join)
_STARS = st.text("aab*?", min_size=3, max_size=9)
_PATH = st.lists(st.sampled_from(("a", "b", "c", "/", "]", "-", ".", "\n", "[")), max_size=10).map(
    "".join
)
globs = st.tuples(
    _PATTERN | _PATTERN.map(lambda text: text * 20) | _STARS | _SETS,
    _PATH | st.text("aab-^\\[", max_size=9),
    _PATH.map(lambda text: (text * 500)[:4000]),
    st.sampled_from(("a" * 255, "a/" * 500, "aab" * 80)),
).map(lambda words: "\0".join(words).encode())


# --- the protocol ----------------------------------------------------------------------------

_LIMITS = st.dictionaries(
    st.sampled_from(("memory_bytes", "disk_bytes", "inodes", "tasks", "descriptors", "cpus",
                     "cpu_seconds", "wall_seconds")),
    _NUMBERS, max_size=8,
)  # fmt: skip
_HONEST_LIMITS = st.dictionaries(
    st.sampled_from(("memory_bytes", "cpus", "wall_seconds", "tasks")),
    st.floats() | st.sampled_from((1, 10**400, float("nan"))), max_size=2,
)  # fmt: skip
_IDS = st.integers(1, 6) | st.sampled_from((0, -1, 1 << 53, 900, 1.0, "1", None, True, [1]))
_MESSAGES = st.fixed_dictionaries(
    {"op": st.sampled_from(("launch", "limits", "kill", "release")), "id": _IDS},
    optional={
        "kind": st.sampled_from(("run", "inspect", "collect", "shell", ["run"], None)),
        "limits": _LIMITS | _VALUES,
        "cause": _TEXTS | _VALUES,
        "of": _IDS,
    },
)
messages = (_MESSAGES | _VALUES).map(lambda value: json.dumps(value).encode())
packets = st.tuples(
    st.binary(min_size=1, max_size=1),
    damaged(messages, most=1) | st.sampled_from((b"[" * 3000, b'{"a":' * 3000, b"{}")),
).map(b"".join)
limits = damaged(_HONEST_LIMITS.map(json.dumps).map(str.encode), most=0) | damaged(
    (_LIMITS | _VALUES).map(lambda value: json.dumps(value).encode()), most=1
)
talks = st.lists(damaged(messages, most=1), max_size=6).map(b"\x1e".join)
# Those that a launcher answers, and goes on.
honest = st.fixed_dictionaries(
    {"op": st.sampled_from(("launch", "limits", "kill", "release")), "id": st.integers(1, 6),
     "kind": st.sampled_from(("run", "inspect")), "limits": _LIMITS.map(
         lambda limits: {name: value for name, value in limits.items()
                         if value == value and not isinstance(value, bool)})},
    optional={"cause": _TEXTS},
).map(lambda value: json.dumps(value).encode())  # fmt: skip


# --- headers ---------------------------------------------------------------------------------

_HOPS = (b"127.0.0.1", b"10.1.2.3", b"1.2.3.4", b"::1", b"2001:db8::7", b"2001:db9::7", b"[",
         b"]", b":80", b"%eth0", b"::ffff:10.1.0.9", b", ", b",", b" ", b"unknown")  # fmt: skip
addresses = st.tuples(joined(*_HOPS, most=2), joined(*_HOPS, most=8)).map(b"\n".join)
_HOSTS = (b"localhost", b"example.org", b"a.", b".", b":", b"8443", b"[::1]", b"1.2.3.4", b"evil",
          b"http://", b"https://", b"/", b"@", b"#", b"?", b"null", b"[")  # fmt: skip
guards = st.tuples(
    st.sampled_from((b"POST", b"GET", b"DELETE", b"x")),
    joined(*_HOSTS, most=4) | st.just(b"localhost"),
    joined(*_HOSTS, most=4)
    | st.tuples(st.just(b"https://localhost"), joined(*_HOSTS, most=2)).map(b"".join),
    st.sampled_from((b"", b"same-origin", b"cross-site", b"none", b"same-site")),
).map(b"\n".join)  # fmt: skip
names = st.binary(max_size=40) | joined(b"a", b"/", b'"', b"\r\n", b"\xff", b"%", b"'", b";", b"=")
dispositions = damaged(
    st.lists(st.sampled_from(_HEADERS), max_size=3).map(b"\r\n".join)
    | joined(b"Content-Disposition:", b"form-data", b";", b"name", b"=", b'"', b"\\", b"filename",
             b"*", b"UTF-8''", b"%2f", b"\r\n"),
)  # fmt: skip


@st.composite
def _requests(draw: Any) -> bytes:
    line = draw(st.sampled_from((
        b"GET /", b"POST /submit", b"POST /run", b"GET /status/JOB", b"GET /logs/JOB",
        b"GET /outputs/JOB", b"GET /download/JOB", b"HEAD /download/JOB/out/a.txt",
        b"GET /download/JOB/caf%C3%A9%20%FF%0A.py", b"DELETE /jobs/JOB", b"POST /jobs/JOB/cancel",
        b"OPTIONS /submit", b"GET /stats", b"GET /health", b"GET /environments", b"GET /no",
        b"GET /status/JOB?wait=x", b"POST /submit?wait=-1",
    )))  # fmt: skip
    line += draw(st.sampled_from((b"?", b"?wait=", b"?wait=1", b"")))
    line += draw(joined(b"wait=1", b"&", b"wait=", b"stream=stdout", b"format=zip", b"0",
                        b"delete=1", b"args=a", b"interpreter=bash", b"%ff", b"/", most=4)
                 | st.just(b""))  # fmt: skip
    heads = draw(st.lists(st.sampled_from((
        b"accept: application/json;q=0, text/plain", b"accept: text/html", b"accept: ;,;q=",
        b"authorization: Bearer TOKEN", b"authorization: Bearer", b"authorization: \xff \xfe",
        b"origin: https://a.example", b"origin: null", b"origin: http://[", b"host: evil",
        b"sec-fetch-site: cross-site", b"x-forwarded-for: 1.2.3.4, ,[", b"upgrade: websocket",
        b"content-type: application/json", b"content-type: multipart/form-data; boundary=xYx",
        b"content-encoding: gzip", b"content-type: \xff;=", b"content-length: 9x",
    )), max_size=4))  # fmt: skip
    body = draw(_json_bodies() | _multiparts().map(lambda data: data.partition(b"\n")[2])
                | st.binary(max_size=20))  # fmt: skip
    return b"\n".join([line + b" HTTP/1.1", b"host: localhost", *heads]) + b"\n\n" + body


requests = damaged(_requests(), most=1)


# --- what an operator writes -----------------------------------------------------------------

runtimes = st.tuples(
    st.sampled_from((b'probe = ["x"]\n', b'probe = ["{file}"]\n', b'probe = ["{cpus}"]\n')),
    st.sampled_from((b'steps = [["x", "{file}"]]\n', b'steps = [["{folders}"], ["{what}"]]\n')),
    st.sampled_from((b'', b'[env]\nA = "{cpus}"\n', b'[env]\nA = "{folder}"\n', b'[env]\nB = 2\n')),
).map(b''.join) | joined(
    b'probe = ["x"]\n', b'steps = [["x", "{file}"]]\n', b"steps = [[]]\n", b'steps = ["x"]\n',
    b'probe = ["{file}"]\n', b"probe = 1\n", b'[env]\nA = "{cpus}"\n', b"[env]\nB = 2\n",
    b'aliases = ["a"]\n', b'extensions = ".x"\n', b'entrypoint = "m"\n', b'"{" = 1\n',
    b'steps = [["{folder}/{folders}"]]\n', b'steps = [["{heap_mb}{what}"]]\n', most=5,
)  # fmt: skip
