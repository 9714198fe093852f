"""LG: logs. Whatever a job prints is kept and served as bytes, never read as anything else."""

import json
import re

import pytest

from tests.attacks.arena import Attacker, Seen
from tests.attacks.wire import (
    MIB,
    crowd_around,
    each,
    full_logs,
    hardened,
    refused,
    request,
)
from tests.attacks.wire import python as submission_of
from tests.journeys.server import eventually, parse

pytestmark = pytest.mark.usefixtures("crowded")
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CAP = 10 * MIB  # SANDRUN_LOG_BYTES


def printed(attacker: Attacker, stdout: bytes, stderr: bytes = b"") -> Seen:
    """A job that prints just that."""
    code = "cat out; cat err >&2"
    return attacker.sh(code, files={"out": stdout, "err": stderr})


def logs_of(attacker: Attacker, seen: Seen) -> dict[str, object]:
    """GET /logs as JSON, which is UTF-8 and has no surrogate in it."""
    answer = attacker.ask("GET", f"/logs/{seen.id}")
    assert (answer.status, answer.headers["content-type"]) == (200, JSON)
    found: dict[str, object] = json.loads(answer.body.decode("utf-8"))
    str(found).encode("utf-8")
    return found


ODD = {
    "all-256": bytes(range(256)) * 3,
    "random": bytes((n * n * 31 + n // 7) % 256 for n in range(100_000)),
    "surrogates": b"a\xed\xa0\x80b\xed\xbf\xbfc\xed\xa0\xbd\xed\xb8\x80",
    "overlong": b"\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf\xfc\x80\x80\x80\x80\xaf",
    "cut-off": b"\xe2\x82",
    "cut-off-long": b"\xf0\x9f\x98" * 40_000,
    "too-high": b"\xf4\x90\x80\x80\xf8\x88\x80\x80\x80\xff\xfe",
    "bom": b"\xef\xbb\xbfx\xff\xfeU\0T\0F\0",
    "nul": bytes(70_000),
    "json": b'"}],"status":"completed","x":{"\\u0000\\ud800',
    "separators": "\u2028\u2029\u0085\ufeff\uffff\ufffe\U0010ffff".encode(),
    "two-bytes-across-pieces": b"x" + "é".encode() * 200_000,
    "three-bytes-across-pieces": b"xx" + "€".encode() * 150_000,
    "four-bytes-across-pieces": b"x" + "😀".encode() * 100_000,
    "http": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n0\r\n\r\n",
    "nothing": b"",
}


def test_any_bytes_are_kept_exactly_and_are_valid_json(attacker: Attacker) -> None:
    """LG-01. With U+FFFD for what is no UTF-8, also where a character lies across two pieces."""

    def check(content: bytes) -> None:
        seen = printed(attacker, content, content[::-1])
        assert (seen.stdout, seen.stderr) == (content, content[::-1])
        both = attacker.exchange(request("GET", f"/logs/{seen.id}", None, "Accept: text/plain"))
        assert parse(both).body == content + content[::-1]
        logs = logs_of(attacker, seen)
        assert logs["stdout"] == content.decode("utf-8", "replace")
        assert logs["stderr"] == content[::-1].decode("utf-8", "replace")
        assert (logs["stdout_bytes"], logs["truncated"]) == (len(content), False)
        whole = attacker.ask("GET", f"/status/{seen.id}?wait=60")
        assert whole.json["logs"]["stdout"] == logs["stdout"]
        attacker.delete(seen.id)

    assert each(ODD.items(), check) == len(ODD)


def test_fifty_readers_of_a_log_of_nothing_but_nuls_do_not_swell_the_server(
    attacker: Attacker,
) -> None:
    """LG-03. 10 MB in each log make 120 MB of JSON; fifty ask for it and read only its beginning,
    and one all of it. What is made for a reader is made as he reads."""
    grown, counts = crowd_around(attacker, full_logs(attacker))
    assert set(counts.values()) == {10 * MIB}, counts
    assert grown < 48 * MIB, f"{grown / MIB:.1f} MB"


TERMINAL = (
    b"\x1b[2J\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b]52;c;ZXZpbA==\x07 \x1b]8;;http://x\x1b\\link"
    b"\x1b]8;;\x1b\\ 50%\r100%\r\n\x08\x08\x7f \x9b31m \xc2\x9b31m \x1bP1$r\x1b\\ \x1b[6n \x1bc"
    b"\xe2\x80\xaetxt.exe\n"
)


def test_control_sequences_are_bytes_in_the_api_and_text_in_the_page(attacker: Attacker) -> None:
    """LG-06. As they are in text/plain, escaped in JSON; and what our page does with logs is to set
    text: in all that it consists of is nothing that makes markup or a terminal of it."""
    seen = printed(attacker, TERMINAL, TERMINAL)
    assert seen.stdout == seen.stderr == TERMINAL
    raw = attacker.exchange(request("GET", f"/logs/{seen.id}?stream=stdout"))
    answer = parse(raw)
    hardened(answer)
    assert (answer.headers["content-type"], answer.body) == (TEXT, TERMINAL)
    escaped = attacker.ask("GET", f"/logs/{seen.id}").body
    assert not re.search(rb"[\x00-\x1f\x7f]", escaped.replace(b"\x7f", b"", 2)), escaped
    assert b"\\u001b[2J" in escaped and json.loads(escaped)["stdout"].encode()[:4] == b"\x1b[2J"
    page = attacker.answer(request("GET", "/", None, BROWSER))
    assert page.headers["content-type"].startswith("text/html")
    for rule in ("script-src 'self'", "require-trusted-types-for 'script'", "default-src 'none'"):
        assert rule in page.headers["content-security-policy"], page.headers
    scripts = re.findall(rb'<script[^>]*src="([^"]+)"', page.body)
    assert scripts and page.body.count(b"<script") == len(scripts)
    for script in scripts:
        source = attacker.ask("GET", script.decode())
        assert source.status == 200 and b"textContent" in source.body
        makes = rb"innerHTML|outerHTML|insertAdjacent|document\.write|srcdoc|\beval\b|Function\("
        assert not re.search(makes, source.body)


def test_markup_in_logs_is_never_rendered(attacker: Attacker) -> None:
    """LG-07. However a browser comes to open them: never a type that it renders, nor one that it
    may guess, and nothing in it could run."""
    markup = b"<!DOCTYPE html><html><body><script>alert(1)</script><svg onload=alert(1)>"
    seen = printed(attacker, markup, markup)
    run = b"print('<!DOCTYPE html><script>alert(1)</script>')"
    requests: dict[str, bytes] = {
        path: request("GET", path.format(seen.id), None, BROWSER)
        for path in (
            "/logs/{}", "/logs/{}?stream=stdout", "/logs/{}?stream=stderr", "/status/{}",
            "/status/{}?wait=1", "/logs/{}?format=html", "/logs/{}?callback=alert", "/logs/{}/",
        )
    }  # fmt: skip
    requests["text"] = request("GET", f"/logs/{seen.id}", None, "Accept: text/plain, text/html")
    requests["run"] = request("POST", "/run", run, BROWSER)
    requests["HEAD"] = request("HEAD", f"/logs/{seen.id}?stream=stdout", None, BROWSER)
    shown = []

    def check(raw: bytes) -> None:
        answer = parse(attacker.exchange(raw))
        hardened(answer)
        assert answer.headers["content-type"] in (TEXT, JSON, "application/problem+json")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        shown.append(b"alert(1)" in answer.body)
        if "x-sandrun-job" in answer.headers:
            job = answer.headers["x-sandrun-job"]
            attacker.tokens[job] = answer.headers["x-sandrun-owner-token"]

    each(requests.items(), check)
    assert shown.count(True) >= 7, shown


def test_a_parameter_that_is_not_offered_changes_nothing(attacker: Attacker) -> None:
    """LG-08. There are no offsets: whatever is said of them, the whole log comes, or a refusal."""
    seen = printed(attacker, b"0123456789", b"abc")
    whole = attacker.ask("GET", f"/logs/{seen.id}").json
    values = ("-1", "1e18", "x", "9" * 5000, "10", "11", "%00", "", "1.5", "NaN", "%D9%A3")
    targets = [
        f"/logs/{seen.id}?{stream}{name}={value}"
        for name in ("offset", "limit", "since", "tail", "stdout_offset", "from")
        for value in values
        for stream in ("", "stream=stdout&")
    ]

    def check(target: str) -> None:
        raw = attacker.exchange(request("GET", target))
        answer = parse(raw)
        if answer.status != 200:
            refused(raw, 400)
        elif "stream=" in target:
            assert answer.body == b"0123456789"
        else:
            assert answer.json == whole

    each([(target[-60:], target) for target in targets], check)
    for stream in ("-1", "stdin", "STDOUT", "stdout,stderr", "stdout%00", "0", "../stdout"):
        refused(attacker.exchange(request("GET", f"/logs/{seen.id}?stream={stream}")), 400)


def test_both_logs_are_kept_apart_and_capped_each(attacker: Attacker) -> None:
    """LG-09. Of the one that overflows, head and tail, and how much is missing; the other is whole.
    Together they come one after the other, as documented."""
    code = """
half = len(sys.argv[1]) and int(sys.argv[1])
first, second = (sys.stdout, sys.stderr)[:: 1 if sys.argv[2] == "stdout" else -1]
second.write("begun\\n"); second.flush()
first.buffer.write(b"H" * half + b"M" * 2_000_003 + b"T" * half); first.flush()
second.write("done\\n"); second.flush()
"""
    for full, other in (("stdout", "stderr"), ("stderr", "stdout")):
        seen = attacker.python(code, str(CAP // 2), full)
        assert (seen.reason, seen.code) == (None, 0), seen
        streams = {"stdout": seen.stdout, "stderr": seen.stderr}
        assert streams[full] == b"H" * (CAP // 2) + b"T" * (CAP // 2)
        assert streams[other] == b"begun\ndone\n"
        logs = logs_of(attacker, seen)
        assert logs["truncated"] is True
        assert logs[f"{full}_dropped_bytes"] == 2_000_003
        assert logs[f"{full}_bytes"] == CAP + 2_000_003
        assert (logs[f"{other}_bytes"], logs[f"{other}_dropped_bytes"]) == (11, 0)
        raw = attacker.exchange(request("GET", f"/logs/{seen.id}", None, "Accept: text/plain"))
        answer = parse(raw)
        assert answer.body == streams["stdout"] + streams["stderr"]
        assert answer.headers["x-sandrun-truncated"] == "true"
        attacker.delete(seen.id)


def test_a_line_that_was_begun_is_kept_when_the_job_is_killed(attacker: Attacker) -> None:
    """LG-09. 64 KB without an end, in either log, by whatever the job dies."""
    code = """
for fd in (1, 2):
    line = b"%d" % fd + b"x" * 65_535
    while line: line = line[os.write(fd, line):]
"""
    ends = {
        "timeout": ("while True: time.sleep(1)", {"timeout": 4}),
        "cpu": ("while True: pass", {"cpu_seconds": 1}),
        "memory": ("x = []\nwhile True: x.append(bytes(1 << 20))", {"memory_mb": 40}),
        "signal": ("os.kill(os.getpid(), signal.SIGKILL)", {}),
        "cancelled": ("while True: time.sleep(1)", {}),
    }

    def check(name: str) -> None:
        last, options = ends[name]
        job = attacker.start_python(code + last, **options)
        if name == "cancelled":
            assert eventually(lambda: len(attacker.log(job, "stderr")) == 65_536, 20)
            attacker.cancel(job)
        seen = attacker.finish(job)
        assert seen.reason == name, seen.status
        assert seen.stdout == b"1" + b"x" * 65_535
        assert seen.stderr == b"2" + b"x" * 65_535

    each([(name, name) for name in ends], check)


def test_nobody_but_the_job_writes_into_its_logs(attacker: Attacker) -> None:
    """LG-10. However it ends, and whatever limit it meets: what it wrote and not a word of ours, no
    path, no warning; why it ended is in its status."""
    mark = b"mine\n"
    begin = "os.write(1, b'mine\\n'); os.write(2, b'mine\\n')\n"
    ends: dict[str, tuple[str, dict[str, object], str | None]] = {
        "end": ("", {}, None),
        "exit": ("os._exit(3)", {}, "exit"),
        "timeout": ("while True: time.sleep(1)", {"timeout": 4}, "timeout"),
        "cpu": ("while True: pass", {"cpu_seconds": 1}, "cpu"),
        "memory": ("x = []\nwhile True: x.append(bytes(1 << 20))", {"memory_mb": 40}, "memory"),
        "killed": ("os.kill(os.getpid(), signal.SIGKILL)", {}, "signal"),
        "crashed": ("ctypes.string_at(0)", {}, "signal"),
        "aborted": ("os.kill(os.getpid(), signal.SIGABRT)", {}, "signal"),
        "denied": ("assert call(101, 0, 0, 0, 0) != 'ok'", {}, None),
        "descriptors": ("try:\n    while True: os.dup(0)\nexcept OSError: pass", {}, None),
        "tasks": (
            "try:\n    while True:\n        if os.fork() == 0: time.sleep(9)\n"
            "except OSError: os._exit(0)", {}, None),
        "disk": (
            "try:\n    with open('f', 'wb') as f:\n        while True: f.write(bytes(1 << 20))\n"
            "except OSError: os._exit(0)", {}, None),
        "gpu": ("", {"gpu": {"required": False}}, None),  # has a warning, in its status
        "orphan": ("if os.fork() == 0: time.sleep(60)", {}, None),
        "outputs": ("os.symlink('/', 'l'); os.mkfifo('p')", {"outputs": ["l/**", "p"]}, None),
        "closed": ("os.close(1); os.close(2); os._exit(4)", {}, "exit"),
    }  # fmt: skip

    def check(name: str) -> None:
        last, options, reason = ends[name]
        seen = attacker.python(begin + last, **options)
        assert seen.reason == reason, (seen.status, seen.stderr[-500:])
        assert (seen.stdout, seen.stderr) == (mark, mark)

    each([(name, name) for name in ends], check)
    # A compiler's words are the compiler's; of ours there are none among them either.
    answer = attacker.accepted(attacker.answer(submission_of("import nowhere")))
    seen = attacker.finish(answer.json["job_id"])
    for word in (b"sandrun", b"sandbox", b"memfd", b"cgroup", b"/site-packages", b"keeper"):
        assert word not in seen.stderr.lower(), seen.stderr
    assert seen.stderr.startswith(b"Traceback"), seen.stderr
