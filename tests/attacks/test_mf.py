"""MF: manifests and parameters. What is not exactly as documented is refused in one sentence."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.arena import Attacker
from tests.attacks.wire import (
    BASIC,
    MAIN,
    MIB,
    PACKERS,
    Entry,
    Lazy,
    asked,
    each,
    file,
    json_submission,
    made,
    multipart,
    packed,
    quick_enough,
    ran,
    refused,
    request,
    submission,
)
from tests.journeys.server import Server, targz

pytestmark = pytest.mark.usefixtures("crowded")
JSON = "Content-Type: application/json"
FORM = "Content-Type: multipart/form-data; boundary=xYx"


UTF_7 = b"+AHsAIg-timeout+ACI-: 1+AH0-"


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
    ("MF-12-utf-7", UTF_7),
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
SOME = [case for case in MANIFESTS if case[0].startswith(("MF-01", "MF-04", "MF-12", "MF-02-ti"))]


def beside(manifest: Lazy) -> bytes:
    return submission(file("main.py", b""), asked(made(manifest)))


def of_group(*ids: str) -> list[tuple[str, Lazy]]:
    return [case for case in MANIFESTS if case[0].startswith(ids)]


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(of_group(*ids), id=ids[0])
        for ids in (("MF-04", "MF-12"), ("MF-02", "MF-13"), ("MF-05",), ("MF-07",), ("MF-08",),
                    ("MF-10",), ("OC-14",), ("AR-20",))
    ],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_is_refused(
    attacker: Attacker, cases: list[tuple[str, Lazy]]
) -> None:
    """MF-02, MF-04, MF-05, MF-07, MF-08, MF-10, MF-12, MF-13, OC-14, AR-20. Each case as a form's
    manifest."""

    def check(manifest: Lazy) -> None:
        refused(attacker.exchange(beside(manifest)), reason="invalid_manifest")

    assert each(cases, check) == len(cases) >= 10


def test_a_manifest_made_to_choke_the_parser_is_refused_within_100_ms(attacker: Attacker) -> None:
    """MF-01. The best of a few times, since the machine has others to serve."""

    def check(manifest: Lazy) -> None:
        raw, seconds = beside(manifest), []
        for _ in range(8):
            began = time.monotonic()
            answer = attacker.exchange(raw)
            seconds.append(time.monotonic() - began)
            refused(answer, reason="invalid_manifest")
            if seconds[-1] < 0.1:
                return
        if quick_enough(min(seconds), 0.1):
            return
        raise AssertionError(f"it took {seconds} s")

    each(of_group("MF-01"), check)


def test_a_job_json_that_makes_no_sense_is_refused_as_well(attacker: Attacker) -> None:
    """MF-01, MF-02, MF-04, MF-12, AR-20. Beside loose files, and in archives, where the server
    reads it as text that a sandbox has found."""

    def loose(manifest: Lazy) -> None:
        raw = submission(file("main.py", b""), file("job.json", made(manifest)))
        refused(attacker.exchange(raw), reason="invalid_manifest")

    each(SOME, loose)
    for form, cases in (("tar.gz", SOME[:24]), ("zip", SOME[:24:4])):

        def in_archive(manifest: Lazy, form: str = form) -> None:
            content = PACKERS[form]([MAIN, Entry("job.json", made(manifest))])
            body = refused(attacker.exchange(submission(file(f"x.{form}", content))))
            assert body["reason"] in ("invalid_manifest", "invalid_upload"), body

        each(cases, in_archive)


def test_a_manifest_inside_a_body_of_json_makes_no_more_sense(attacker: Attacker) -> None:
    """MF-01, MF-02, MF-04. The bytes are parsed once, with the files."""
    fitting = ("MF-04-null", "MF-04-nothing", "MF-04-blank")
    cases = [case for case in SOME if "twice" not in case[0] and case[0] not in fitting]

    def check(manifest: Lazy) -> None:
        body = b'{"files": {"main.py": ""}, "manifest": ' + made(manifest) + b"}"
        raw = attacker.exchange(json_submission(body))
        refused(raw, 413 if len(body) > 4 * MIB else 400)

    each(cases, check)


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


def test_a_body_of_json_that_is_no_submission_is_refused(attacker: Attacker) -> None:
    """MF-01, MF-04. With nothing of it kept: the invariants count memory files."""

    def check(body: Lazy) -> None:
        refused(attacker.exchange(json_submission(made(body))), 400, 413)

    each(JSON_BODIES.items(), check)
    files = {f"{name}.bin": "x" * (MIB // 4) for name in range(8)}
    damaged: dict[str, object] = {**files, "y": {"base64": "!"}}
    bodies: list[dict[str, object]] = [{"files": damaged}]
    for manifest in ({"timout": 1}, {"timeout": 0}, {"entrypoint": "x"}, "x", {"timout": 1}):
        bodies.append({"files": files, "manifest": manifest})
    for body in bodies:
        refused(attacker.exchange(json_submission(body)))


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
    "requirements-lead-out": (b"print(1)", "?requirements=../../x"),
    "gpu": (b"print(1)", "?gpu=1"),
}  # fmt: skip


def test_a_run_that_makes_no_sense_is_refused(attacker: Attacker) -> None:
    """MF-02, MF-05, MF-07, MF-08, MF-10, OC-14. The manifest as a query of /run."""

    def check(case: tuple[bytes, str]) -> None:
        body, query = case
        refused(attacker.exchange(request("POST", f"/run{query}", body)))

    each(RUNS.items(), check)


def test_a_question_that_makes_no_sense_is_refused(attacker: Attacker) -> None:
    """MF-02. Numbers and words in the queries about a job."""
    job = attacker.sh("true").id
    for target in (
        f"/status/{job}?wait=x", f"/status/{job}?wait=-1", f"/status/{job}?wait=1.5",
        f"/status/{job}?wait=", f"/status/{job}?wait=%D9%A3", f"/logs/{job}?stream=",
        f"/logs/{job}?stream=stdin", f"/logs/{job}?stream=../x", f"/download/{job}?format=rar",
        f"/download/{job}?format=", f"/download/{job}?format=tar.gz%00",
    ):  # fmt: skip
        refused(attacker.exchange(request("GET", target)), reason="invalid_request")
    for wait in ("0", "0" * 9000 + "1", "9" * 9000):
        answer = attacker.ask("GET", f"/status/{job}?wait={wait}")
        assert (answer.status, answer.json["status"]) == (200, "completed"), wait


def test_the_parse_that_is_hashed_is_the_parse_that_runs(attacker: Attacker) -> None:
    """MF-04. Spellings of one manifest: one hash and one behaviour. Another manifest: another."""
    code = b"import json, os, sys\nprint(json.dumps([sys.argv[1:], os.environ.get('A')]))"

    def hash_and_text(manifest: bytes) -> tuple[str, list[object]]:
        with ran(attacker, submission(file("main.py", code), asked(manifest))) as job:
            return job["job_hash"], json.loads(job["logs"]["stdout"])

    same = (
        b'{"args": ["a", "\xc3\xbc"], "env": {"A": "b"}, "timeout": 9}',
        b' {\r\n"timeout":9 ,"env":{"A":"b"},"args":["a","\\u00fc"]}\t',
        b'{"\\u0061rgs": ["\\u0061", "\xc3\xbc"], "env": {"\\u0041": "b"}, "timeout": 9}',
    )
    others = (
        b'{"args": ["a", "u\xcc\x88"], "env": {"A": "b"}, "timeout": 9}',
        b'{"args": ["a", "\xc3\xbc"], "env": {"A": "b"}, "timeout": 8}',
        b'{"args": ["a", "\xc3\xbc"], "env": {"A": "B"}, "timeout": 9}',
    )
    found = [hash_and_text(manifest) for manifest in same]
    assert found == [found[0]] * 3
    assert found[0][1] == [["a", "ü"], "b"]
    hashes = {hash_and_text(manifest)[0] for manifest in others}
    assert len(hashes | {found[0][0]}) == 4


def test_arguments_and_environment_arrive_byte_for_byte(attacker: Attacker) -> None:
    """MF-07, MF-08. Through no shell; as many as are allowed."""
    args = [
        "", "a|b", "a\nb\r", "$(id)", "`id`", "'; id; \"", "-c", "--", "ü\u2028\u202e", "*", " ",
        "\\", "%s", "{}", "~", "&&", "<x", "a" * 50_000,
    ]  # fmt: skip
    args += [f"{n}" for n in range(1000 - len(args))]
    env = {
        "IFS": "x", "PYTHONPATH": "/nowhere", "BASH_ENV": "/etc/passwd", "_": "\x7f\n", "A": "",
        "PYTHONSTARTUP": "/etc/passwd", "ENV": "/etc/passwd", "B": "x=y;id",
    }  # fmt: skip
    seen = attacker.python("say([sys.argv[1:], dict(os.environ)])", *args, env=env).said
    assert seen[0] == args
    assert {name: seen[1][name] for name in env} == env


def test_only_the_program_gets_the_environment_of_the_manifest(attacker: Attacker) -> None:
    """MF-08. Not our first process inside, and no process outside."""
    with attacker.held("say(os.environ['MARK'])", env={"MARK": "mark", "IFS": "x"}) as job:
        assert job.said == "mark"
        assert b"MARK=mark" in environment(job.program.pid)
        pids = attacker.server.pids()
        for pid in (job.init.pid, *pids.values()):
            assert b"MARK" not in environment(pid)
            assert b"IFS=x" not in environment(pid)


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def test_wishes_for_packages_start_nothing_on_the_host(attacker: Attacker) -> None:
    """MF-10. Not a process is started by the web server, or by the keeper: the faults of children
    that they had are as before."""
    pids = attacker.server.pids()
    before = {name: faults_of_children(pids[name]) for name in ("web", "keeper")}
    wishes: list[dict[str, object]] = [
        {"requirements": ["numpy; touch /tmp/x"]}, {"requirements": "../../x"},
        {"requirements": ["$(touch /tmp/x)"]}, {"environment": "a;touch /tmp/x"},
        {"environment": "$(touch /tmp/x)"}, {"environment": "../../../tmp"},
        {"requirements": ["x" * 10_000]}, {"environment": "ml-basic"},
    ]  # fmt: skip
    files = targz({"main.py": b"", "requirements.txt": b"numpy\n-e ../../x\n"})
    for wish in wishes:
        refused(attacker.exchange(submission(file("main.py", b""), asked(wish))))
        refused(attacker.exchange(packed("tar.gz", files, {**BASIC, **wish})))
    with ran(attacker, packed("tar.gz", files)) as job:  # a file of that name is only a file
        assert job["status"] == "completed"
    assert {name: faults_of_children(pids[name]) for name in before} == before


def faults_of_children(pid: int) -> tuple[int, int]:
    """Minor page faults of children that it has waited for, and how many children it has."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return int(fields[8]), len(" ".join(children).split())


def test_a_gpu_that_is_not_required_is_left_out_and_said(attacker: Attacker) -> None:
    """MF-10. The one wish that is let pass."""
    manifest: dict[str, object] = {"gpu": {"required": False}, "requirements": []}
    with ran(attacker, submission(file("main.py", b""), asked(manifest))) as job:
        assert len(job["warnings"]) == 1 and "gpu" in job["warnings"][0]


def test_a_manifest_of_100_mb_is_refused(attacker: Attacker) -> None:
    """MF-12. By its own limit, and by that of the upload."""
    part = multipart(file("main.py", b""), asked(b" " * (99 * MIB)))
    raw = attacker.exchange(request("POST", "/submit", part, FORM))
    refused(raw, reason="invalid_manifest", word="larger than")
    raw = attacker.exchange(request("POST", "/submit", part + bytes(2 * MIB), FORM))
    refused(raw, 413, reason="too_large")


def test_a_manifest_in_a_strange_wrapping_is_refused(attacker: Attacker) -> None:
    """MF-12. Encodings of the part, of the text, and more parts than one."""
    heads = [
        'name="manifest"\r\nContent-Transfer-Encoding: base64',
        'name="manifest"\r\nContent-Transfer-Encoding: quoted-printable',
        'name="manifest"\r\ncontent-transfer-encoding:x-uuencode',
        'name="manifest"\r\n\tfolded',
        'name="manifest"\r\nContent-Disposition: attachment',
        'name="manifest"; name="files"',
        'name="man',
        "name=\"manifest\"; filename*=utf-7''x",
        'filename="x"',
    ]

    def check(head: str) -> None:
        parts = (file("main.py", b""), (head, base64.b64encode(b"{}")))
        refused(attacker.exchange(submission(*parts)))
        if "ncoding" in head:  # even of what would be right without it
            refused(attacker.exchange(submission(parts[0], (head, b"{}"))), reason="invalid_upload")

    each([(repr(head), head) for head in heads], check)
    two = (file("main.py", b""), asked({"timeout": 1}), asked({"timeout": 2}))
    refused(attacker.exchange(submission(*two)), reason="invalid_manifest")
    kind = "application/json; charset=utf-7"
    utf_7 = (f'name="manifest"\r\nContent-Type: {kind}', UTF_7)
    refused(attacker.exchange(submission(file("main.py", b""), utf_7)), reason="invalid_manifest")
    body = '{"files": {"main.py": ""}}'.encode("utf-7").replace(b"{", b"+AHs-")
    refused(attacker.exchange(request("POST", "/submit", body, f"Content-Type: {kind}")), 400, 415)


def test_a_job_gets_no_more_time_than_the_server_and_its_quota_have(attacker: Attacker) -> None:
    """MF-13. More than the server's limit is refused, with that limit said; what is more than the
    client has left is not, and ends when nothing is left, which its status tells."""
    limits = {"SANDRUN_TIMEOUT_SECONDS": 120, "SANDRUN_CPU_SECONDS_PER_MINUTE": 1.2}
    limited = Server(env=limits)
    try:
        client = Attacker(limited, "MF-13")
        raw = client.exchange(beside(b'{"timeout": 121}'))
        refused(raw, reason="invalid_manifest", word="from 1 to 120")
        seen = client.python("while True: pass", timeout=120)
        assert (seen.reason, seen.code) == ("cpu_quota", -1), seen.status
        client.leave()
    finally:
        assert limited.end() == 0, limited.banner
