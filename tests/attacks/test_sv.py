"""SV: the server's own doors. Requests that two readers would read differently, connections that
ask for more than answers, tokens that are none, and uploads with two meanings."""

import base64
import json
import socket
import time
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.attacks.arena import Attacker
from tests.attacks.wire import (
    MIB,
    asked,
    each,
    file,
    json_submission,
    python,
    quick_enough,
    ran,
    refused,
    request,
    submission,
)
from tests.journeys.server import Answer, eventually, memory_of, parse

pytestmark = pytest.mark.usefixtures("crowded")
HOST = b"Host: localhost\r\n"
CLOSE = b"Connection: close\r\n"
NEXT = b"GET /stats HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"  # what must not be answered as well


def received(client: socket.socket) -> bytes:
    data = bytearray()
    try:
        while piece := client.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return bytes(data)


def answers_of(raw: bytes) -> list[Answer]:
    """All answers of one connection."""
    found = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        fields = parse(head + b"\r\n\r\n").headers
        size = int(fields.get("content-length", 0))
        if fields.get("transfer-encoding") == "chunked":
            size = rest.index(b"0\r\n\r\n") + 5
        found.append(parse(head + b"\r\n\r\n" + rest[:size]))
        raw = rest[size:]
    return found


# --- requests -----------------------------------------------------------------------------------


def post(*lines: bytes, body: bytes = b"") -> bytes:
    head = b"POST /submit HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def get(*lines: bytes, line: bytes = b"GET /health HTTP/1.1") -> bytes:
    return line + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


_HOST = HOST.strip()
CHUNKED = b"Transfer-Encoding: chunked"
CONFUSED = {
    "two ways to end": post(CHUNKED, b"Content-Length: 4", body=b"0\r\n\r\n"),
    "two ways, other order": post(b"Content-Length: 4", CHUNKED, body=b"0\r\n\r\n"),
    "two encodings": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "an unknown encoding": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "an encoding after a tab": post(b"Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n"),
    "length with plus": post(b"Content-Length: +5", body=b"abcde"),
    "negative length": post(b"Content-Length: -1", body=b""),
    "length in hex": post(b"Content-Length: 0x5", body=b"abcde"),
    "length with underscore": post(b"Content-Length: 1_0", body=b"abcdeabcde"),
    "two lengths": post(b"Content-Length: 5", b"Content-Length: 6", body=b"abcdef"),
    "two lengths in one": post(b"Content-Length: 5, 6", body=b"abcdef"),
    "length of 2 to the 64": post(b"Content-Length: 18446744073709551621", body=b"abcde"),
    "chunk of minus one": post(CHUNKED, body=b"-1\r\nx\r\n0\r\n\r\n"),
    "chunk of 0x1": post(CHUNKED, body=b"0x1\r\nx\r\n0\r\n\r\n"),
    "chunk of +1": post(CHUNKED, body=b"+1\r\nx\r\n0\r\n\r\n"),
    "chunk of 1_0": post(CHUNKED, body=b"1_0\r\nxxxxxxxxxxxxxxxx\r\n0\r\n\r\n"),
    "chunk without its end": post(CHUNKED, body=b"1\r\nxy\r\n0\r\n\r\n"),
    "chunk with long words": post(CHUNKED, body=b"1;" + b"a" * 40_000 + b"\r\nx\r\n0\r\n\r\n"),
    "space before the colon": get(_HOST, b"Content-Length : 5"),
    "no colon": get(_HOST, b"nothing"),
    "no name": get(_HOST, b": nothing"),
    "NUL in a header": get(_HOST, b"X: a\0b"),
    "NUL in a name": get(_HOST, b"X\0: a"),
    "bare CR": get(_HOST, b"X: a\rContent-Length: 5"),
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/3.7": get(_HOST, line=b"GET /health HTTP/3.7"),
    "four words": get(_HOST, line=b"GET /health x HTTP/1.1"),
    "no words": get(_HOST, line=b"\0\0\0"),
    "a tab in the line": get(_HOST, line=b"GET\t/health\tHTTP/1.1"),
}


# Nobody doubts where these end, so what is behind them is another request.
WRONG = {
    "long trailers": post(CHUNKED, body=b"1\r\nx\r\n0\r\nT: " + b"b" * 60_000 + b"\r\n\r\n"),
    "two hosts": get(_HOST, b"Host: evil"),
    "no host": get(b"Accept: */*"),
    "another host in the line": get(_HOST, line=b"GET http://evil/health HTTP/1.1"),
    "a user in the line": get(_HOST, line=b"GET http://127.0.0.1@evil/health HTTP/1.1"),
    "an authority": get(_HOST, line=b"CONNECT evil:80 HTTP/1.1"),
    "a star": get(_HOST, line=b"GET * HTTP/1.1"),
    "two slashes": get(_HOST, line=b"GET //evil/health HTTP/1.1"),
}
FOLDED = get(_HOST, b"X: a", b" Content-Length: 5", b"\tHost: evil")


def test_a_request_that_can_be_read_in_two_ways_is_none(attacker: Attacker) -> None:
    """SV-02. Two ends, two lengths, two hosts, numbers that only some take, lines that are none;
    each with another request behind. Where it may end is doubtful: refused once, or hung up on,
    and what is behind is not done. Else refused by itself; a folded line is no header."""

    def doubtful(raw: bytes) -> None:
        answer = attacker.exchange(raw + NEXT)
        if answer:
            assert b'"your_quota"' not in answer, answer
            refused(answer, 400, 404, 405, 411, 413, 414, 415, 417, 421, 431)

    def wrong(raw: bytes) -> None:
        first, *others = answers_of(attacker.exchange(raw + NEXT))
        assert first.status in (400, 404, 421), first
        assert first.headers["content-type"] == "application/problem+json", first
        assert [other.status for other in others] in ([], [200]), others

    assert each(CONFUSED.items(), doubtful) == len(CONFUSED) > 25
    assert each(WRONG.items(), wrong) == 8
    folded = answers_of(attacker.exchange(FOLDED + NEXT))
    assert [answer.status for answer in folded] in ([200, 200], [400]), folded


def upgrade(*lines: bytes, first: bytes = b"GET / HTTP/1.1", body: bytes = b"") -> bytes:
    keys = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13"
    return get(_HOST, *lines, *keys, line=first) + body


OPENS_NOTHING = [(b"HTTP/", status) for status in (b"400", b"404", b"415", b"200")]


def test_no_spelling_opens_a_websocket(attacker: Attacker) -> None:
    """SV-03. Fifteen ways to ask for one, on several paths, hung up on halfway and with frames
    behind: never 101."""
    frames = b"\x81\x85\0\0\0\0hello" * 50
    up, asks = b"Connection: Upgrade", b"Upgrade: websocket"
    cases = {
        "usual": upgrade(up, asks),
        "capitals": upgrade(b"CONNECTION: UPGRADE", b"UPGRADE: WebSocket"),
        "folded": upgrade(up, b"Upgrade:", b" websocket"),
        "two": upgrade(up, b"Upgrade: h2c", asks),
        "a list": upgrade(up, b"Upgrade: h2c, websocket"),
        "a version": upgrade(up, b"Upgrade: websocket/13"),
        "a space": upgrade(up, b"Upgrade : websocket"),
        "kept alive": upgrade(b"Connection: keep-alive, Upgrade", asks),
        "not connected": upgrade(b"Connection: close", asks),
        "HTTP/1.0": upgrade(up, asks, first=b"GET / HTTP/1.0"),
        "posted": upgrade(up, asks, b"Content-Length: 2", first=b"POST /submit HTTP/1.1") + b"{}",
        "a job": upgrade(up, asks, first=b"GET /status/0 HTTP/1.1"),
        "health": upgrade(up, asks, first=b"GET /health HTTP/1.1"),
        "a web socket's path": upgrade(up, asks, first=b"GET /ws HTTP/1.1"),
        "h2c": upgrade(up, b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
    }

    def check(raw: bytes) -> None:
        with attacker.connect() as client:
            client.sendall(raw)
            client.shutdown(socket.SHUT_WR)
            answer = received(client)
        with attacker.connect() as client:
            client.sendall(raw + frames)
            client.settimeout(30)
            first = client.recv(65536)
        for given in (answer, first):
            assert b" 101 " not in given.split(b"\r\n")[0], given[:500]
            assert b"sec-websocket-accept" not in given.lower(), given[:500]
            assert not given or (given[:5], given[9:12]) in OPENS_NOTHING, given[:500]
        assert first

    assert each(cases.items(), check) == len(cases)


def test_a_path_in_any_spelling_is_the_right_file_or_none(attacker: Attacker) -> None:
    """SV-04. A file in a folder, and one whose name is that path in escapes, asked for in twenty
    ways: the one that the bytes of the path say, or 404; never another, never a fault."""
    code = (
        "os.mkdir('x'); Path('x/y').write_text('inner'); Path('x%2Fy').write_text('escaped')\n"
        "Path('q?y=').write_text('query'); Path('s;a').write_text('semicolon')"
    )
    job = attacker.python(code).id
    inner, escaped, none = b"inner", b"escaped", None
    paths: dict[str, bytes | None] = {
        f"/download/{job}/x/y": inner,
        f"/download/{job}/x%2Fy": inner,
        f"/download/{job}/x%2fy": inner,
        f"/download/{job}/%78/%79": inner,
        f"/%64ownload/{job}/x/y": inner,
        f"/download%2F{job}/x/y": inner,
        f"/download/{job}%2Fx%2Fy": inner,
        f"/download/{job}/x/y?z=/b": inner,
        f"/download/{job}/x%252Fy": escaped,
        f"/download/{job}/q%3Fy=": b"query",
        f"/download/{job}/s;a": b"semicolon",
        f"/download/{job}/s%3Ba": b"semicolon",
        f"/download/{job}//x/y": none,
        f"/download/{job}/x//y": none,
        f"/download/{job}/x/y/": none,
        f"/download/{job}/./x/y": none,
        f"/download/{job}/x/../x/y": none,
        f"/download/{job}/x/y;a": none,
        f"/download/{job}/x/y%00": none,
        f"/download/{job}/x/y%ff": none,
        f"/download/{job}/x/%2e%2e/x/y": none,
        f"/download/{job}/{'x/' * 4000}y": none,
        f"/download/{job}/x%5Cy": none,
        "/download/%00/x/y": none,
        "/download//x/y": none,
    }

    def check(case: tuple[str, bytes | None]) -> None:
        path, expected = case
        raw = attacker.exchange(request("GET", path))
        if expected is None:
            refused(raw, 400, 404, 414)
        else:
            answer = parse(raw)
            assert (answer.status, answer.body) == (200, expected), answer

    assert each(((path[:80], (path, body)) for path, body in paths.items()), check) == 25


def heap(count: int) -> bytes:
    """So many pairs of requests for one connection, and one that ends it."""
    pair = [request("GET", path, None, "Connection: keep-alive") for path in ("/health", "/none")]
    return b"".join(pair) * count + request("GET", "/health")


def test_requests_in_one_heap_are_answered_in_their_order(attacker: Attacker) -> None:
    """SV-05. Two thousand requests at once on a connection that does not read, and a hundred behind
    a submission: the server holds little meanwhile, and answers each in its turn. Whoever closes
    half of the connection while the job runs leaves nothing."""
    web = attacker.server.pids()["web"]
    before = memory_of(web).total
    with attacker.connect() as client:
        client.sendall(heap(1000))
        attacker.ask("GET", "/health")  # another is served before anything was read
        grown = memory_of(web).total - before
        data = received(client)
    statuses = [answer.status for answer in answers_of(data)]
    assert statuses == [200, 404] * 1000 + [200], (len(statuses), statuses[:9])
    assert grown < 32 * MIB, grown

    first = python("print(1)").replace(b"Connection: close\r\n", b"", 1)
    raw = attacker.exchange(first + heap(50))
    answer, *others = answers_of(raw)
    attacker.accepted(answer)
    assert answer.status == 200, answer
    assert [other.status for other in others] == [200, 404] * 50 + [200]
    assert attacker.finish(answer.json["job_id"]).text == "1\n"

    waits = python("import time; time.sleep(30)").replace(b"/submit ", b"/submit?wait=60 ", 1)
    with attacker.connect() as client:
        client.sendall(waits)
        assert eventually(lambda: active(attacker) == 1, 10)
        client.shutdown(socket.SHUT_WR)  # soon taken for gone: with its job
        assert eventually(lambda: active(attacker) == 0, 10)


def active(attacker: Attacker) -> int:
    return int(attacker.ask("GET", "/stats").json["your_quota"]["active_jobs"])


def test_who_reads_nothing_has_little_held_in_the_kernel(attacker: Attacker) -> None:
    """SV-13. Thirty downloads of 20 MB that nobody reads: what the kernel keeps of each is less
    than a megabyte, and of the server's own memory next to nothing. Another client has it whole."""
    web = attacker.server.pids()["web"]
    with ran(attacker, python("open('o', 'wb').write(bytes(20 << 20))")) as job:
        asks = request("GET", f"/download/{job['job_id']}/o")
        assert len(attacker.exchange(asks)) > 20 * MIB
        before = memory_of(web).total
        with ExitStack() as stack:
            for _ in range(30):
                client = stack.enter_context(attacker.connect())
                client.sendall(asks)
                assert client.recv(1)
            assert attacker.ask("GET", "/health").status == 200
            assert len(Attacker(attacker.server).exchange(asks)) > 20 * MIB
            queues = unread(attacker)
            assert len(queues) == 30, len(queues)
            assert max(queues) < MIB, queues
            assert memory_of(web).total - before < 64 * MIB
        assert eventually(lambda: not unread(attacker), 10)


def unread(attacker: Attacker) -> list[int]:
    """Bytes that the kernel holds for each of the attacker's connections."""
    remote = socket.inet_aton(attacker.address)[::-1].hex().upper()
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    ours = (row[4] for row in rows if row[2].startswith(f"{remote}:") and row[3] != "06")
    return [int(queues.partition(":")[0], 16) for queues in ours]


# --- tokens -------------------------------------------------------------------------------------


def test_only_the_token_itself_opens_its_job(attacker: Attacker) -> None:
    """SV-09. Tokens that are long, doubled, cut, changed at one end, of another job, or no text:
    all are answered alike; and a HEAD deletes nothing, even with the right one."""
    job, other = (attacker.python("Path('out').write_text('x')").id for _ in range(2))
    token = attacker.tokens[job]
    wrong = {
        "empty": "Bearer ",
        "none": "Bearer",
        "cut": f"Bearer {token[:-1]}",
        "longer": f"Bearer {token}x",
        "first changed": f"Bearer {'x' if token[0] != 'x' else 'y'}{token[1:]}",
        "last changed": f"Bearer {token[:-1]}{'x' if token[-1] != 'x' else 'y'}",
        "another job's": f"Bearer {attacker.tokens[other]}",
        "upper case": f"Bearer {token.swapcase()}",
        "twice": f"Bearer {token} {token}",
        "a list": f"Bearer {token}, Bearer {token}",
        "the scheme twice": f"Bearer Bearer {token}",
        "no scheme": token,
        "basic": f"Basic {base64.b64encode(token.encode()).decode()}",
        "Latin": f"Bearer {token[:-1]}\xe9",
        "8,000 bytes": f"Bearer {'x' * 8000}",
        "the id": f"Bearer {job}",
    }
    bodies = set()

    def check(header: str) -> None:
        for method, path in (("DELETE", f"/jobs/{job}"), ("POST", f"/jobs/{job}/cancel"),
                             ("GET", f"/download/{job}?delete=1")):  # fmt: skip
            raw = attacker.exchange(request(method, path, None, f"Authorization: {header}"))
            body = refused(raw, 401, 403)
            bodies.add(json.dumps(body, sort_keys=True))

    assert each(wrong.items(), check) == len(wrong)
    assert len(bodies) <= 2, bodies  # none, and a wrong one
    long = request("DELETE", f"/jobs/{job}", None, f"Authorization: Bearer {'x' * MIB}")
    answer = attacker.exchange(long)
    assert not answer or 400 <= parse(answer).status < 500, answer[:500]
    doubled = [f"Authorization: Bearer {word}" for word in (token, "x")]
    for headers in (doubled, doubled[::-1]):
        refused(attacker.exchange(request("DELETE", f"/jobs/{job}", None, *headers)), 400, 401, 403)
    right = f"Authorization: Bearer {token}"
    for path in (f"/download/{job}?delete=1", f"/jobs/{job}"):
        head = attacker.exchange(request("HEAD", path, None, right))
        assert b"\r\n\r\n" in head and head.endswith(b"\r\n\r\n"), head
    assert attacker.ask("GET", f"/status/{job}").status == 200
    lower = request("DELETE", f"/jobs/{job}", None, f"authorization:  bearer   {token}  ")
    assert parse(attacker.exchange(lower)).status == HTTPStatus.OK
    del attacker.tokens[job]
    assert attacker.ask("GET", f"/status/{job}").status == 404
    assert attacker.ask("GET", f"/status/{other}").status == 200


# --- uploads ------------------------------------------------------------------------------------

TREE = """
import json, os
print(json.dumps({ascii(os.path.join(top, name)[2:])[1:-1]: os.path.getsize(top + "/" + name)
                  for top, _, names in os.walk(".") for name in names}))
"""
PROGRAM = file("main.py", TREE.encode())
GIVEN = asked({"entrypoint": "main.py", "interpreter": "python3"})
Tree = dict[str, int] | None  # beside main.py; None: refused


def tree_or_refused(attacker: Attacker, raw: bytes, expected: Tree) -> None:
    if expected is None:
        refused(attacker.exchange(raw), 400, 413, 415)
        return
    with ran(attacker, raw) as job:
        tree = json.loads(job["logs"]["stdout"])
        assert tree.pop("main.py") == len(TREE), tree
        assert tree == expected, tree


def form_of(body: bytes, boundary: str) -> bytes:
    kind = f"Content-Type: multipart/form-data; boundary={boundary}"
    return request("POST", "/submit?wait=60", body, kind)


def test_a_form_has_one_reading(attacker: Attacker) -> None:
    """SV-11. Names that are said twice, differently, or in escapes; a manifest that is called a
    file; heads with half line ends; boundaries that are odd, or begin to be one: refused, or one
    reading, and the files that run are those."""

    def odd(head: str, content: bytes = b"12345") -> bytes:
        return submission(PROGRAM, GIVEN, (head, content))

    extended = "name=\"files\"; filename*=UTF-8''"
    cases: dict[str, tuple[bytes, Tree]] = {
        "usual": (odd('name="files"; filename="z"'), {"z": 5}),
        "escapes that lead out": (odd(extended + "%2e%2e%2fx"), None),
        "escapes": (odd(extended + "%7a"), {"z": 5}),
        "escaped NUL": (odd(extended + "z%00.txt"), None),
        "two names that differ": (odd(extended + 'z; filename="a"'), {"z": 5}),
        "a name twice": (odd('name="files"; filename="a"; filename="z"'), None),
        "a field twice": (odd('name="files"; name="manifest"; filename="z"'), None),
        "another character set": (odd("name=\"files\"; filename*=UTF-16''z"), None),
        "two manifests": (odd('name="manifest"', b"{}"), None),
        "a manifest that is a file": (odd('name="manifest"; filename="z"', b"{}"), None),
        "almost a manifest": (odd('name="manifests"', b"{}"), None),
        "no field": (odd('filename="z"'), None),
        "empty name": (odd('name="files[]"; filename=""', b""), {}),
        "folder": (odd('name="files"; filename="d/z"'), {"d/z": 5}),
        "backslash": (odd('name="files"; filename="d\\\\z"'), None),
        "begins to be a boundary": (
            odd('name="files"; filename="z"', b"\r\n--xY\r\n--xYX--\r\n-"), {"z": 18}),
        "packed": (odd('name="files"; filename="z"\r\nContent-Transfer-Encoding: base64'), None),
        "disposed twice": (odd('name="files"; filename="z"\r\nContent-Disposition: form-data; '
                               'name="files"; filename="y"'), None),
    }  # fmt: skip

    def check(case: tuple[bytes, Tree]) -> None:
        raw, expected = case
        waits = raw.replace(b"POST /submit HTTP", b"POST /submit?wait=60 HTTP")
        tree_or_refused(attacker, waits, expected)

    assert each(cases.items(), check) == len(cases)
    whole = submission(PROGRAM, GIVEN).partition(b"\r\n\r\n")[2]
    spaced = "a b'()+_,-./:=?" + "z" * 54 + "x"
    wrapped: dict[str, tuple[bytes, Tree]] = {
        "70 bytes with spaces": (form_of(whole.replace(b"xYx", spaced.encode()), f'"{spaced}"'),
                                 {}),
        "71 bytes": (form_of(whole.replace(b"xYx", b"z" * 71), "z" * 71), None),
        "half line ends": (form_of(whole.replace(b"\r\n", b"\n"), "xYx"), None),
        "half line ends in heads": (form_of(whole.replace(b"\r\n\r\n", b"\n\n"), "xYx"), None),
        "a preamble": (form_of(b"before\r\n" + whole, "xYx"), None),
        "no end": (form_of(whole.replace(b"--xYx--", b"--xYx"), "xYx"), None),
        "two boundaries": (form_of(whole, "xYx; boundary=yXy"), None),
    }  # fmt: skip
    assert each(wrapped.items(), check) == len(wrapped)


def test_no_boundary_hides_between_two_pieces(attacker: Attacker) -> None:
    """SV-11. The end of a part lies around the first and the second MiB of the body, at every byte
    of itself: the file is as long as it was."""
    bare = submission(PROGRAM, GIVEN, file("z", b"")).partition(b"\r\n\r\n")[2]
    offset = bare.index(b'filename="z"\r\n\r\n') + len(b'filename="z"\r\n\r\n')

    def check(size: int) -> None:
        raw = submission(PROGRAM, GIVEN, file("z", b"\r" * size), headers=(), query="?wait=60")
        tree_or_refused(attacker, raw, {"z": size})

    # The reader begins a new piece at each MiB after the part's beginning; the delimiter has 7.
    relative = [MIB + more for more in range(-8, 2)]
    absolute = [2 * MIB - offset + more for more in (-7, -4, -1, 0)]
    assert each(((f"{size}", size) for size in (*relative, *absolute)), check) == 14


MANY = [f'"d/{n}":{{"base64":""}}' for n in range(20_000)]


def test_json_that_says_too_much_is_refused_or_means_one_thing(attacker: Attacker) -> None:
    """SV-12. Twenty thousand files, names that are no text or lead out, keys that are there twice,
    brackets in the manifest, base64 with what does not belong to it: refused within two seconds,
    or run as it says."""
    one = json.dumps(TREE)

    def body(
        files: str, manifest: str = '{"entrypoint": "main.py", "interpreter": "python3"}'
    ) -> bytes:
        files = files.replace("@", f'"main.py": {one}')
        return json_submission(f'{{"files": {{{files}}}, "manifest": {manifest}}}'.encode())

    many = ",".join(MANY)
    cases: dict[str, tuple[bytes, Tree]] = {
        "usual": (body('@, "z": {"base64": "MTIzNDU="}, "y": "123"'), {"z": 5, "y": 3}),
        "20,000 files": (body("@," + many), None),
        "half a character": (body('@, "\\ud800": "1"'), None),
        "half a character in content": (body('@, "z": "\\ud800"'), None),
        "a name out": (body('@, "../z": "1"'), None),
        "a name from the root": (body('@, "/z": "1"'), None),
        "a name of nothing": (body('@, "": "1"'), None),
        "a name with NUL": (body('@, "z\\u0000": "1"'), None),
        "one place, two ways": (body('@, "d/z": "1", "d//z": "2"'), None),
        "one name twice": (body('@, "z": "1", "z": "2"'), None),
        "one name twice, in two spellings": (body('@, "z": "1", "\\u007a": "2"'), None),
        "files twice": (
            json_submission(b'{"files": {"main.py": "1"}, "files": {"main.py": "2"}}'), None),
        "two manifests": (body("@", '{"entrypoint": "main.py"}, "manifest": {}'), None),
        "two manifests, in two spellings": (
            body("@", '{"entrypoint": "main.py"}, "\\u006danifest": {}'), None),
        "file and folder": (body('@, "d": "1", "d/z": "2"'), None),
        "base64 with a line end": (body('@, "z": {"base64": "MTIz\\nNDU="}'), None),
        "base64 with a space": (body('@, "z": {"base64": "MTIz NDU="}'), None),
        "base64 cut off": (body('@, "z": {"base64": "MTIzNDU"}'), None),
        "base64 of the web": (body('@, "z": {"base64": "_-8="}'), None),
        "base64 and more": (body('@, "z": {"base64": "MTI=", "mode": "755"}'), None),
        "a number": (body('@, "z": 1'), None),
        "brackets": (body("@", "[" * 30_000 + "]" * 30_000), None),
        "braces": (body("@", '{"a":' * 10_000 + "1" + "}" * 10_000), None),
        "a manifest key twice": (body("@", '{"entrypoint": "main.py", "entrypoint": "z"}'), None),
        "another key": (json_submission(b'{"files": {"main.py": "1"}, "manifests": {}}'), None),
        "files are a list": (json_submission(b'{"files": ["main.py"]}'), None),
        "nothing": (json_submission(b"{}"), None),
        "UTF-16": (json_submission('{"files": {"main.py": "1"}}'.encode("utf-16")), None),
        "more than 4 MB": (body('@, "z": "' + "x" * 4 * MIB + '"'), None),
    }  # fmt: skip

    def check(case: tuple[bytes, Tree]) -> None:
        raw, expected = case
        began = time.monotonic()
        tree_or_refused(attacker, raw, expected)
        assert quick_enough(time.monotonic() - began, 2)

    assert each(cases.items(), check) == len(cases)
