"""WB: what web sites, browsers and bad clients send. A clear refusal and nothing else: no job, no
traceback, no header of their making, nothing that a browser would run, nothing left.
"""

import base64
import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import quote

import pytest

from tests.attacks.arena import SESSION, Attacker
from tests.attacks.checkout import checkout
from tests.attacks.conftest import BAIT
from tests.attacks.wire import (
    HARDENED,
    MIB,
    OURS,
    Lazy,
    asked,
    each,
    file,
    hardened,
    json_submission,
    made,
    multipart,
    python,
    quick_enough,
    ran,
    refused,
    request,
    sent,
    submission,
)
from tests.journeys.server import Answer, Server, cgroups_of, eventually, memory_of, parse

pytestmark = pytest.mark.usefixtures("crowded")
MAIN_PART = file("main.py", b"print('ran')")
FORM = "Content-Type: multipart/form-data; boundary=xYx"
JSON = "Content-Type: application/json"
PLAIN = "Content-Type: text/plain"
BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


# --- other web sites ---------------------------------------------------------------------------

EVIL = [
    "Origin: https://evil.example", "Origin: null", "Origin: file://", "Origin: ",
    "Origin: http://localhost.evil.example", "Origin: http://evil.example/localhost",
    "Origin: http://localhost@evil.example", "Origin: http://localhost:1", "Origin: x",
    "Origin: http://[", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site",
    "Sec-Fetch-Site: x", "Origin: http://localhost\r\nOrigin: http://evil.example",
]  # fmt: skip
PREFLIGHT = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x")


CODE = multipart(('name="code"', b"print(1)"))


def check_foreign(attacker: Attacker, header: str) -> None:
    """With this header nothing is begun and nothing ended, and no answer may be read."""
    for raw in (
        submission(MAIN_PART, headers=[header]),
        request("POST", "/submit", b'{"files": {"main.py": ""}}', JSON, header),
        request("POST", "/submit", b'{"files": {"main.py": ""}}', PLAIN, header),
        request("POST", "/run", b"print(1)", header),
        request("POST", "/run", b"print(1)", PLAIN, header),
        request("POST", "/jobs/x/cancel", b"", header),
        request("DELETE", "/jobs/x", None, header),
        request("POST", "/form", CODE, FORM, header),
        request("POST", "/j/x", multipart(('name="do"', b"delete")), FORM, header),
    ):  # fmt: skip
        refused(attacker.exchange(raw), 403, reason="foreign_origin")
    answer = attacker.answer(request("GET", "/stats", None, header))
    assert answer.status == 200
    hardened(answer)  # with no access-control-allow-origin
    refused(attacker.exchange(request("OPTIONS", "/submit", None, header, *PREFLIGHT)), 405)


def test_another_web_site_starts_nothing_and_reads_nothing(attacker: Attacker) -> None:
    """WB-01, WB-04. By a form, by fetch with and without CORS, by preflight."""
    before = attacker.ask("GET", "/stats").json["your_quota"]
    count = each(((header, header) for header in EVIL), lambda h: check_foreign(attacker, h))
    assert count == len(EVIL)
    assert attacker.ask("GET", "/stats").json["your_quota"] == before, "a job was taken"


def test_our_own_page_and_programs_may(attacker: Attacker) -> None:
    """WB-01. curl sends no Origin; our own page sends ours."""
    for headers in ((), ("Origin: http://localhost", "Sec-Fetch-Site: same-origin")):
        with ran(attacker, submission(MAIN_PART, headers=headers)) as job:
            assert job["logs"]["stdout"] == "ran\n"


# --- the page's form ----------------------------------------------------------------------------


def document(answer: Answer, status: int) -> str:
    """The text of an answer that is the page."""
    assert answer.status == status, answer
    hardened(answer)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and "*" not in policy and "http" not in policy, policy
    assert "form-action 'self'" in policy and "frame-ancestors 'none'" in policy
    text = answer.body.decode()
    assert not re.search(r"(?i)<style|\sstyle=|\son\w+\s*=|javascript:|<base|<iframe|<img", text)
    return text


WRONG = [
    ('name="code"', b"\xff"), ('name="code"; filename="x"', b""), ('name="x"', b"1"),
    ('name="owner_token"', b"x"), ('name="args"', b"'"), ('name="language"', b"<script>"),
    ('name="code\u202e<img src=x>"', b"1"),
]  # fmt: skip


def test_the_form_is_ours_alone_and_its_token_is_nowhere_else(attacker: Attacker) -> None:
    """WB-27. (That no other site may send it, WB-01 tries.)"""
    for part in WRONG:
        parts = [part] if "code" in part[0] else [part, ('name="code"', b"<script>x")]
        document(attacker.answer(request("POST", "/form", multipart(*parts), FORM)), 400)
    twice = multipart(('name="code"', b"1"), ('name="code"', b"2"))
    document(attacker.answer(request("POST", "/form", twice, FORM)), 400)
    document(attacker.answer(request("POST", "/form", b"code=1", "Content-Type: text/plain")), 415)
    large = multipart(('name="code"', bytes(MIB)))
    refused(attacker.exchange(request("POST", "/form", large, FORM)), 413)
    mine = document(attacker.answer(request("POST", "/form", CODE, FORM)), 200)
    tokens = re.findall(r'name="owner_token" value="([^"]+)"', mine)
    job = re.search(r'action="/j/(job-[0-9a-f]+)"', mine)
    assert job and len(tokens) == 1 and mine.count(tokens[0]) == 1
    link = attacker.answer(request("GET", f"/j/{job[1]}?owner_token={tokens[0]}", None, BROWSER))
    assert tokens[0] not in document(link, 200)
    for token, status in ((b"", 401), (b"x", 403), (tokens[0].encode() + b"x", 403)):
        sent = multipart(('name="owner_token"', token), ('name="do"', b"delete"))
        answer = attacker.answer(
            request("POST", f"/j/{job[1]}?owner_token={tokens[0]}", sent, FORM)
        )
        assert "Delete now" not in document(answer, status)
    ends = multipart(('name="owner_token"', tokens[0].encode()), ('name="do"', b"delete"))
    gone = attacker.answer(request("POST", f"/j/{job[1]}", ends, FORM))
    assert "it is not found" in document(gone, 200) and tokens[0] not in gone.body.decode()
    document(attacker.answer(request("POST", f"/j/{job[1]}", ends, FORM)), 404)


SERVERS = [
    "https://a.example;script-src%20*", "https://a.example%20*", "https://a.example,b", "data:",
    "https://a.example%0d%0aX-Injected:1", "https://a.example'", "https://a.example/%22%3E%3Cscript%3E",
    "javascript:alert(1)", "//a.example", "https://u:p@a.example", "https://*.example", "https://[::1]",
    "https://a.example&server=https://b.example", "https://a.example%00", "blob:https://a.example",
]  # fmt: skip


def test_no_policy_is_loosened_by_an_address(attacker: Attacker) -> None:
    """WB-28. An answer to a wrong ?server= is as hard as any, and runs nothing."""
    for server in SERVERS:
        for path in ("/", "/j/x"):
            raw = attacker.exchange(request("GET", f"{path}?server={server}", None, BROWSER))
            assert b"<script" not in document(parse(raw), 400).encode()
            assert b"X-Injected" not in raw.partition(b"\r\n\r\n")[0]
    right = attacker.answer(request("GET", "/?server=https://a.example", None, BROWSER))
    policy = right.headers["content-security-policy"]
    assert "connect-src 'self' https://a.example wss://a.example; " in policy
    assert policy.count("a.example") == 3, "in connect-src and frame-src only"
    assert "a.example" not in attacker.exchange(request("GET", "/", None, BROWSER)).decode()


# --- what browsers would run -------------------------------------------------------------------

ACTIVE_TYPES = re.compile(r"html|xml|svg|script|css|flash|mhtml|xsl|message/|multipart/|wasm")
ACTIVE_NAMES = [
    "evil.html", "evil.htm", "evil.svg", "evil.svgz", "evil.xml", "evil.xsl", "evil.xslt",
    "evil.xhtml", "evil.js", "evil.mjs", "evil.css", "evil.pdf", "evil.swf", "evil.mhtml",
    "evil.HTML", "evil", "evil.html.", "evil.wasm", "evil.eml", "evil.shtml", "evil.json",
    "evil.txt", "evil.rdf", "evil.map", "evil.hta", "evil.xht", ".htaccess", "evil.JS",
]  # fmt: skip
# Their types say what they are: text, or what goes to another program once it is downloaded.
INERT = ("evil.json", "evil.txt", "evil.pdf")


def test_no_output_is_run_by_a_browser(attacker: Attacker) -> None:
    """WB-05, WB-17. Whatever it is called, it is an attachment of a type that nothing renders, and
    in a sandbox should a browser show it all the same."""
    code = f"for n in {ACTIVE_NAMES!r}: open(n, 'w').write('<script>alert(1)</script>')"
    with ran(attacker, python(code)) as job:
        assert len(job["outputs"]) == len(ACTIVE_NAMES)
        for output in job["outputs"]:
            answer = attacker.answer(request("GET", output["download_url"], None, BROWSER))
            assert answer.body == b"<script>alert(1)</script>"
            hardened(answer)
            kind = answer.headers["content-type"]
            assert not ACTIVE_TYPES.search(kind), (output["path"], kind)
            if output["path"] not in INERT:
                assert kind == "application/octet-stream", output["path"]
            assert answer.headers["content-disposition"].startswith("attachment;")
            assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"


FRAMED = {**HARDENED, "x-frame-options": "SAMEORIGIN"}
SHOWN = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; media-src data: blob:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
# UTF-7 and UTF-16 with a mark of its own are HTML like any other: the frame is the wall.
HTML = [b"<script>alert(1)</script>", b"+ADw-script+AD4-", "<p>".encode("utf-16"), b""]


def test_html_is_shown_in_a_frame_of_no_origin_and_nothing_else_is(attacker: Attacker) -> None:
    """WB-26. Its head is the same whatever is in it; no browser takes it for a script, a style, a
    picture or a worker, nor shows it by itself."""
    code = f"for n in {ACTIVE_NAMES!r}: open(n, 'w').write('<script>alert(1)</script>')\n"
    code += f"for n, b in enumerate({HTML!r}): open(f'{{n}} \u00fc.htm', 'wb').write(b)"
    with ran(attacker, python(code)) as job:
        shown = 0
        for output in job["outputs"]:
            place = output["download_url"].replace("/download/", "/preview/")
            raw = attacker.exchange(request("GET", place, None, BROWSER))
            if not output["path"].lower().endswith((".html", ".htm")):
                body = refused(raw, 404, reason="unknown_file")
                assert output["download_url"] in body["details"]
                continue
            shown += 1
            answer = parse(raw)
            assert answer.status == 200 and len(answer.body) == output["size"], output
            hardened(answer, FRAMED)
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers["content-security-policy"] == SHOWN
            assert "content-disposition" not in answer.headers and "etag" not in answer.headers
            for dest in ("document", "script", "style", "image", "serviceworker", "object", "x"):
                asks = request("GET", place, None, f"Sec-Fetch-Dest: {dest}")
                refused(attacker.exchange(asks), 400, reason="invalid_request")
            foreign = attacker.answer(request("GET", place, None, EVIL[0]))
            hardened(foreign, FRAMED)  # with no access-control-allow-origin
        assert shown == len(HTML) + 3, "evil.html, .htm and .HTML"
        for path in ("", "none.html", "..%2fevil.html", "%00.html", "EVIL.HTML", "evil.html/"):
            refused(attacker.exchange(request("GET", f"/preview/{job['job_id']}/{path}")), 404)


MARKUP = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"'><svg onload=alert(1)>",
    "');alert(1)//", "javascript:alert(1)", "&lt;b&gt;", "${alert(1)}", "{{7*7}}", "\u202egpj.exe",
]  # fmt: skip


def test_markup_is_text_everywhere(attacker: Attacker) -> None:
    """WB-06, WB-25. In names, logs, manifests and refusals it is JSON that no browser renders; and
    the page can render none of it: it has nothing inline, sets text only, and is forbidden the
    rest. (That it does so in a real browser is the page's own test.)"""
    for word in MARKUP:
        name = word.replace("/", "_")
        code = f"import sys; print({word!r}); print({word!r}, file=sys.stderr); open({name!r}, 'w')"
        manifest = {"args": [word], "env": {"X": word}, "outputs": ["*"]}
        with ran(attacker, python(code, **manifest)) as job:
            assert job["logs"]["stdout"] == f"{word}\n" == job["logs"]["stderr"]
            assert name in [output["path"] for output in job["outputs"]]
            for path in ("status", "logs", "outputs"):
                raw = request("GET", f"/{path}/{job['job_id']}", None, BROWSER)
                answer = attacker.answer(raw)
                hardened(answer)
                assert answer.headers["content-type"] == "application/json", (word, path)
        for bad in ({"entrypoint": word}, {"interpreter": word}, {word: word}, {"timeout": word}):
            raw = submission(MAIN_PART, asked({"interpreter": "python3", **bad}))
            refused(attacker.exchange(raw.replace(b"Host:", BROWSER.encode() + b"\r\nHost:", 1)))
    page = attacker.answer(request("GET", "/", None, BROWSER))
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    hardened(page)
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy and "*" not in policy and "http" not in policy
    for rule in (
        "default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'",
        "form-action 'self'", "require-trusted-types-for 'script'", "trusted-types 'none'",
    ):  # fmt: skip
        assert rule in policy, (rule, policy)
    text = page.body.decode()
    scripts = re.findall(r"<script\b[^>]*>(.*?)</script>", text, re.S)
    assert scripts == [""], "a script of the page's own text"
    assert not re.search(r"(?i)<style|\sstyle=|\son\w+\s*=|javascript:|<base|<iframe", text)
    sources = re.findall(r'<(?:script|link)\b[^>]*\b(?:src|href)="([^"]*)"', text)
    assert len(sources) >= 2 and all(re.fullmatch(r"/[a-z][\w./-]*", path) for path in sources)
    for path in sources:
        answer = attacker.answer(request("GET", path))
        assert answer.status == 200
        hardened(answer, {**HARDENED, "cache-control": "public, max-age=31536000, immutable"})
        if "/vendor/" in path:  # other people's; the browser's tests see what it does
            continue
        # WB-25: nothing of elsewhere, and nothing that makes markup of text.
        body = answer.body.replace(b"http://www.w3.org/2000/svg", b"")
        assert not re.search(rb"""["'(]//|@import""", body), path
        # In a script it is a function; what it would load, the policy forbids.
        assert path.endswith(".js") or b"url(" not in body, path
        assert not re.search(
            rb"innerHTML|outerHTML|insertAdjacent|document\.write|srcdoc|\beval\b|Function\(|"
            rb"createContextualFragment|DOMParser|setTimeout\(['\"]",
            body,
        ), path
        if path.endswith(".js"):
            assert answer.headers["content-type"] == "text/javascript; charset=utf-8"


def test_every_answer_is_for_once_and_for_here(attacker: Attacker) -> None:
    """WB-17. Whatever is asked about a job: kept by nobody, told to no other site, framed nowhere;
    a HEAD has the same head and no body."""
    with ran(attacker, python("print('x' * 100_000); open('out', 'w').write('x')")) as job:
        number = job["job_id"]
        for path, kind in (
            (f"/status/{number}", "application/json"),
            (f"/status/{number}?wait=1", "application/json"),
            (f"/logs/{number}", "application/json"),
            (f"/logs/{number}?stream=stdout", "text/plain; charset=utf-8"),
            (f"/outputs/{number}", "application/json"),
            (f"/download/{number}", "application/gzip"),
            (f"/download/{number}?format=zip", "application/zip"),
            (f"/download/{number}/out", "application/octet-stream"),
            ("/", "application/json"),
            ("/stats", "application/json"),
            ("/health", "application/json"),
            ("/environments", "application/json"),
        ):
            answer = attacker.answer(request("GET", path))
            assert (answer.status, answer.headers["content-type"]) == (200, kind), path
            hardened(answer)
            head = attacker.answer(request("HEAD", path))
            assert (head.status, head.body) == (200, b""), path
            assert head.headers["content-type"] == kind
            hardened(head)
        for path in (f"/status/{number}x", f"/download/{number}/none", "/none", "/static/none"):
            refused(attacker.exchange(request("GET", path)), 404)


def test_nothing_of_a_request_or_a_file_comes_back_in_a_header(attacker: Attacker) -> None:
    """WB-07. CR, LF, NUL and bytes beyond ASCII: by path, query and id, and by the names of files
    that are downloaded."""
    evil = "%0d%0aX-Injected:%20x%00\u00ff"
    paths = (
        f"/{evil}", f"/status/{evil}", f"/logs/{evil}", f"/outputs/{evil}", f"/download/{evil}",
        f"/download/x/{evil}", f"/?{evil}", f"/jobs/{evil}", f"/static/{evil}",
    )  # fmt: skip

    def check(path: str) -> None:
        raw = attacker.exchange(request("GET", quote(path, safe="/?%:=")))
        assert b"x-injected" not in raw.partition(b"\r\n\r\n")[0].lower()
        assert raw.count(b"HTTP/1.1 ") == 1
        assert parse(raw).status in (200, 400, 404, 405), path

    assert each(((path, path) for path in paths), check) == len(paths)
    names = [
        "a\r\nX-Injected: x",
        'a"; x="b',
        "a\x7f\x1b",
        "é\u202e\u2028",
        "\udcff\udcfe",
        "a\\b\n",
    ]
    code = f"for n in {names!r}: open(n, 'w').write('it')"
    with ran(attacker, python(code)) as job:
        for query in (f"format={evil}", f"stream={evil}", f"wait={evil}", f"delete={evil}"):
            for what in ("status", "logs", "download"):
                check(f"/{what}/{job['job_id']}?{query}")
        assert len(job["outputs"]) == len(names)
        for output in job["outputs"]:
            raw = attacker.exchange(request("GET", output["download_url"]))
            head, _, body = raw.partition(b"\r\n\r\n")
            assert body == b"it" and b"\r\nx-injected" not in head.lower(), output
            assert head.isascii() and not re.search(rb"[\0-\x09\x0b\x0c\x0e-\x1f\x7f]", head), head
            [line] = re.findall(rb"(?im)^content-disposition: (.*)\r$", head + b"\r")
            plain = rb"attachment; filename=\"[\w. -]*\"; filename\*=UTF-8''[\w.%~-]*"
            assert re.fullmatch(plain, line), line


# --- forms that are none -----------------------------------------------------------------------


def part_flood(count: int, head: bytes, boundary: bytes = b"xYx") -> bytes:
    return (b"--" + boundary + b"\r\n" + head + b"\r\n\r\n\r\n") * count


LONG = b"b" * 70
LONG_FORM = f"Content-Type: multipart/form-data; boundary={LONG.decode()}"
EMPTY_PART = b'Content-Disposition: form-data; name="x"'
OPEN_PART = b"--xYx\r\n" + EMPTY_PART + b"\r\n\r\n"
FLOODS: dict[str, Lazy] = {
    "empty parts": lambda: part_flood(1_000_000, b"") + b"--xYx--\r\n",
    "fields": lambda: part_flood(100_000, EMPTY_PART) + b"--xYx--\r\n",
    "boundaries": lambda: b"--xYx\r\n" * 1_000_000,
    "half boundaries": lambda: OPEN_PART + b"\r\n--xY" * 1_000_000,
    "false boundaries": lambda: OPEN_PART + b"\r\n--xYxz" * 100_000,
    "1 MB of head": lambda: b"--xYx\r\nX: " + b"a" * MIB + b"\r\n\r\n\r\n--xYx--\r\n",
    "many heads": lambda: b"--xYx\r\n" + b"X: a\r\n" * 100_000 + b"\r\n\r\n--xYx--\r\n",
    "head of parameters": part_flood(1, EMPTY_PART + b'; a="b"' * 1000) + b"--xYx--\r\n",
    "head of backslashes": part_flood(
        1, b'Content-Disposition: form-data; name="files"; filename="' + b"\\" * 8000) + b"--xYx--",
    "no end": multipart(MAIN_PART)[:-10],
    "no last dashes": multipart(MAIN_PART)[:-4],
    "only an end": b"--xYx--\r\n",
    "nothing": b"",
    "no boundary": b"print(1)",
    "preamble": b"preamble\r\n" + multipart(MAIN_PART),
    "line feeds": multipart(MAIN_PART).replace(b"\r\n", b"\n"),
    "nested": multipart(
        ('name="files"\r\nContent-Type: multipart/mixed; boundary=in', multipart(MAIN_PART))),
    "base64": multipart(
        (file("main.py", b"")[0] + "\r\nContent-Transfer-Encoding: base64", b"cHJp\r\n bnQ=")),
    "base64 of spaces": lambda: multipart(
        (file("main.py", b"")[0] + "\r\nContent-Transfer-Encoding: base64", b" \r\n" * MIB)),
    "no disposition": part_flood(1, b"Content-Type: text/plain") + b"--xYx--\r\n",
    "attachment": part_flood(1, b'Content-Disposition: attachment; name="files"') + b"--xYx--\r\n",
}  # fmt: skip
LONG_FLOODS: dict[str, Lazy] = {  # with the longest boundary that there may be
    "long boundaries": lambda: (b"--" + LONG + b"\r\n") * 1_000_000,
    "almost long boundaries": lambda: b"--" + LONG + b"\r\n" + EMPTY_PART + b"\r\n\r\n"
                              + (b"\r\n--" + LONG[:-1]) * 1_000_000,
}  # fmt: skip
FORM_SECONDS = 1.0
BOUNDARIES = [
    "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""',
    "multipart/form-data; boundary=" + "a" * 71, "multipart/form-data; boundary=a\tb",
    "multipart/form-data; boundary=\xe9", "multipart/form-data; boundary=a; boundary=b",
    'multipart/form-data; boundary="a', "multipart/form-data; boundary=a;b;c",
    'multipart/form-data; boundary="a "',
]  # fmt: skip


def test_a_form_that_is_none_is_refused_within_a_second(attacker: Attacker) -> None:
    """WB-11. Floods of parts, fields, boundaries and heads, with and without an end."""

    def check(flood: tuple[str, Lazy]) -> None:
        kind, content = flood
        raw = request("POST", "/submit", made(content), kind)
        began = time.monotonic()
        answer = attacker.exchange(raw)
        took = time.monotonic() - began
        refused(answer, reason="invalid_upload")
        # Once more: what a busy machine made slow once, it seldom does twice.
        if not quick_enough(took, FORM_SECONDS):
            began = time.monotonic()
            attacker.exchange(raw)
            took = time.monotonic() - began
            assert quick_enough(took, FORM_SECONDS), f"{took:.2f} s"

    def cases() -> Iterator[tuple[str, tuple[str, Lazy]]]:
        for name, content in FLOODS.items():
            yield name, (FORM, content)
        for name, content in LONG_FLOODS.items():
            yield name, (LONG_FORM, content)

    assert each(cases(), check) == len(FLOODS) + len(LONG_FLOODS)
    with ran(attacker, submission(MAIN_PART)):  # what they were made of is a good form
        pass


def test_a_boundary_that_is_none_is_refused(attacker: Attacker) -> None:
    """WB-11."""

    def check(kind: str) -> None:
        raw = request("POST", "/submit", multipart(MAIN_PART), f"Content-Type: {kind}")
        refused(attacker.exchange(raw), 400, 415)

    assert each(((ascii(kind), kind) for kind in BOUNDARIES), check) == len(BOUNDARIES)


OTHER_TYPES = [
    "Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded",
    "Content-Type: ", "X: no-type", "Content-Type: multipart/mixed; boundary=xYx",
    "Content-Type: application/octet-stream", "Content-Type: application/jsonx",
    "Content-Type: \xff", "Content-Type: text/json", "Content-Type: ;boundary=xYx",
    FORM + "\r\nContent-Encoding: gzip", JSON + "\r\nContent-Encoding: br",
]  # fmt: skip


def test_a_body_of_another_type_is_refused(attacker: Attacker) -> None:
    """WB-21. JSON as text/plain, which a web site may send without being asked, is no JSON."""

    def check(header: str) -> None:
        for body in (multipart(MAIN_PART), b'{"files": {"main.py": ""}}', b"files=main.py", b""):
            refused(attacker.exchange(request("POST", "/submit", body, header)), 415)

    assert each(((ascii(header), header) for header in OTHER_TYPES), check) == len(OTHER_TYPES)


# --- verbs and paths ---------------------------------------------------------------------------

ROUTES = {
    "/": "GET", "/health": "GET", "/stats": "GET", "/environments": "GET", "/submit": "POST",
    "/run": "POST", "/status/x": "GET", "/logs/x": "GET", "/outputs/x": "GET", "/download/x": "GET",
    "/download/x/y": "GET", "/jobs/x": "DELETE", "/jobs/x/cancel": "POST", "/static/x": "GET",
    "/preview/x/y": "GET", "/form": "POST",
}  # fmt: skip
VERBS = (
    "TRACE", "PUT", "PATCH", "OPTIONS", "POST", "DELETE", "GET", "FOO", "CONNECT", "PROPFIND",
    "A" * 99,
)  # fmt: skip
OVERRIDE = ("X-HTTP-Method-Override: DELETE", "X-Method-Override: POST", "X-HTTP-Method: PUT")


def test_other_verbs_do_nothing(attacker: Attacker) -> None:
    """WB-12. On every route; a header does not make one verb of another, and a HEAD has no body."""

    def check(path: str) -> None:
        allowed = ROUTES[path]
        for verb in VERBS:
            if verb != allowed:
                raw = attacker.exchange(request(verb, path, None, *OVERRIDE))
                # Twisted knows that CONNECT goes with no path.
                refused(raw, 405, *((400, 404) if verb == "CONNECT" else ()))
                if parse(raw).status == 405:
                    assert allowed in parse(raw).headers["allow"]
        head = attacker.answer(request("HEAD", path))
        assert head.body == b""
        if allowed != "GET":
            assert head.status == 405
        else:
            get = attacker.answer(request("GET", path, None, *OVERRIDE))
            assert (get.status, get.headers) == (head.status, head.headers), path

    assert each(((path, path) for path in ROUTES), check) == len(ROUTES)
    for line in (b"CONNECT localhost:80", b"OPTIONS *", b"CONNECT evil.example:443", b"GET *"):
        raw = line + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        refused(attacker.exchange(raw), 400, 404, 405)
    for verb in ("post", "Post", "pOST"):
        raw = submission(MAIN_PART).replace(b"POST", verb.encode(), 1)
        refused(attacker.exchange(raw), 405, word="capital letters")


def test_other_verbs_and_headers_do_nothing_to_a_job(attacker: Attacker) -> None:
    """WB-12. One that runs goes on, and one that is over stays."""
    with attacker.held() as held:
        for verb in ("TRACE", "PUT", "PATCH", "OPTIONS", "HEAD", "FOO"):
            token = f"Authorization: Bearer {attacker.tokens[held.id]}"
            for path in (f"/jobs/{held.id}", f"/jobs/{held.id}/cancel"):
                answer = attacker.answer(request(verb, path, None, token, *OVERRIDE))
                assert answer.status == 405, (verb, path, answer)
            answer = attacker.answer(request("HEAD", f"/status/{held.id}", None, token, *OVERRIDE))
            assert (answer.status, answer.body) == (200, b"")
        assert attacker.ask("GET", f"/status/{held.id}").json["status"] == "running"


NOWHERE = [
    "//submit", "/submit/", "/SUBMIT", "/submit;x", "/submit%2f", "/./submit", "/x/../submit",
    "/%2e/submit", "//evil.example/submit", "/\\evil.example", "/submit%00", "/submit%0a",
    "//evil.example", "///evil.example/%2f..", "/http://evil.example", "/%2f%2fevil.example",
    "/status", "/status/", "/jobs/x/cancel/", "/status/x/y", "/%", "/%zz", "/%ff%fe", "/\x7f",
    "/static/..%2f..%2fmanage.py", "/static/../settings.py", "/static/", "/static/%00",
    "/static/frontend/../../x", "/static/..%2f", "/admin", "/admin/", "/__debug__/", "/.git/config",
    "/.git", "/schema", "/schema/", "/docs", "/metrics", "/api/submit", "/.env",
    "/robots.txt", "/favicon.ico", "/%2e%2e/etc/passwd", "/pool", "/debug/pprof/", "/_profiler",
    "/" + "a" * 15_000, "/" + "a/" * 7500, "/submit/../../../etc/passwd", "/status/" + "j" * 9000,
    "/status/%00", "/status/..", "/status/job-*", "/logs/%ff", "/status/%F0%9F%98%80",
    "/download//x", "/download/x/", "/jobs/", "/server-status", "/wp-login.php", "x", "?", "",
]  # fmt: skip


def test_paths_that_lead_nowhere_are_not_found_and_lead_nowhere_else(attacker: Attacker) -> None:
    """WB-13, WB-22. Neither a page of a framework, nor a file, nor another host."""

    def check(path: str) -> None:
        for method in ("GET", "POST"):
            raw = attacker.exchange(request(method, path, b"" if method == "POST" else None))
            refused(raw, 400, 404, 405)
            assert "location" not in parse(raw).headers

    assert each(((ascii(path)[:40], path) for path in NOWHERE), check) == len(NOWHERE)
    refused(attacker.exchange(request("GET", "/" + "a" * 16_500)), 414)
    for path in (b"/\xc3\xa9", b"/status/\xff\xfe"):
        refused(attacker.exchange(request("GET", path)), 400, 404)
    quota = attacker.ask("GET", "/stats").json["your_quota"]
    assert quota["active_jobs"] == 0 and quota["can_submit"], "one of them was a job"


# --- heads that are none -----------------------------------------------------------------------

HEADS = {
    "600 headers": (431, "".join(f"X-{n}: a\r\n" for n in range(600))),
    "64 KB header": (431, "X: " + "a" * 65_536 + "\r\n"),
    "64 KB name": (431, "X" * 65_536 + ": a\r\n"),
    "20 KB of headers": (431, "".join(f"X-{n}: {'a' * 1000}\r\n" for n in range(20))),
    "20 KB of cookies": (431, "Cookie: " + "a=b; " * 4000 + "\r\n"),
    "nul": (400, "X: a\0b\r\n"),
    "control": (400, "X: a\x0bb\r\n"),
    "return": (400, "X: a\rb\r\n"),
    "no colon": (400, "X\r\n"),
    "space before colon": (400, "X : a\r\n"),
    "no name": (400, ": a\r\n"),
    "two lengths": (400, "Content-Length: 1\r\nContent-Length: 2\r\n"),
    "length and chunks": (400, "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
    "negative length": (400, "Content-Length: -1\r\n"),
    "length with plus": (400, "Content-Length: +1\r\n"),
    "length in hex": (400, "Content-Length: 0x1\r\n"),
    "length is huge": (413, "Content-Length: " + "9" * 400 + "\r\n"),
    "unknown coding": (400, "Transfer-Encoding: gzip, chunked\r\n"),
    "odd coding": (400, "Transfer-Encoding: xchunked\r\n"),
    "two hosts": (400, "Host: localhost\r\nHost: evil.example\r\n"),
    "foreign host": (400, "Host: evil.example\r\n"),
    "empty host": (400, "Host: \r\n"),
    "host with path": (400, "Host: localhost/evil\r\n"),
    "host with user": (400, "Host: evil@localhost\r\n"),
    "forwarded host": (400, "Host: evil.example\r\nX-Forwarded-Host: localhost\r\n"),
}  # fmt: skip


def test_a_head_that_is_none_or_too_long_is_refused(attacker: Attacker) -> None:
    """WB-16, WB-23."""

    def check(case: tuple[int, str]) -> None:
        status, head = case
        host = "" if "Host: " in head.split("X-Forwarded")[0] else "Host: localhost\r\n"
        raw = f"GET /health HTTP/1.1\r\n{host}Connection: close\r\n{head}\r\n".encode("latin-1")
        refused(attacker.exchange(raw), status)

    assert each(HEADS.items(), check) == len(HEADS)


def test_many_parameters_are_refused_and_cookies_mean_nothing(attacker: Attacker) -> None:
    """WB-16. 1e5 of them are too long for a head; 2 500 fit in, and are too many for a job."""
    many = "&".join(f"{n}=" for n in range(2500))
    refused(attacker.exchange(request("POST", f"/run?{many}", b"print(1)")))
    for path in ("/stats", "/health", "/"):
        assert attacker.answer(request("GET", f"{path}?{many}")).status == 200
    refused(attacker.exchange(request("GET", "/?" + "a=&" * 100_000)), 414)
    cookies = "Cookie: " + "; ".join(f"a{n}={'b' * 70}" for n in range(100))
    assert len(cookies) > 7500
    assert attacker.answer(request("GET", "/stats", None, cookies)).status == 200


HOST = b"Host: localhost\r\nConnection: close\r\n\r\n"
CHUNKED = b"POST /submit HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST
NO_REQUESTS = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "http 0.9": b"GET /health\r\n\r\n",
    "http 9": b"GET /health HTTP/9.9\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "no version": b"GET /health HTTP\r\nHost: localhost\r\n\r\n",
    "words": b"one two three four\r\n\r\n",
    "nothing": b"\r\n\r\n \r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n",
    "bad chunk": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "negative chunk": CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n",
    "chunk too short": CHUNKED + b"1\r\nabc\r\n0\r\n\r\n",
    "path not ascii": b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST,
    "query not ascii": b"GET /?\xff HTTP/1.1\r\n" + HOST,
    "verb not ascii": b"G\xc9T / HTTP/1.1\r\n" + HOST,
    "nul in path": b"GET /\0 HTTP/1.1\r\n" + HOST,
}  # fmt: skip
WEBSOCKET = (
    "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13", "Connection: Upgrade, close",
)  # fmt: skip
H2C = ("Upgrade: h2c", "HTTP2-Settings: AAMAAABk", "Connection: Upgrade, close")


def test_what_is_no_request_of_ours_is_refused(attacker: Attacker) -> None:
    """WB-24. TLS, HTTP/2, WebSockets with a body; what is merely not spoken is not heeded."""

    def check(raw: bytes) -> None:
        refused(attacker.exchange(raw), 400, 404)

    assert each(NO_REQUESTS.items(), check) == len(NO_REQUESTS)
    for method, target in (
        ("POST", "/submit"), ("POST", "/run"), ("POST", "/"), ("POST", "/status/x"), ("GET", "/"),
    ):  # fmt: skip
        body = b"x" * MIB if method == "POST" else None
        refused(attacker.exchange(request(method, target, body, FORM, *WEBSOCKET)), 400)
    with ran(attacker, submission(MAIN_PART, headers=H2C)) as job:
        assert job["logs"]["stdout"] == "ran\n"


PROXY_WORDS = (
    "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "X-Forwarded-Port: 1",
    "Forwarded: for=1.2.3.4;host=evil.example;proto=https", "X-Original-URL: /stats",
    "X-Rewrite-URL: /stats", "X-Host: evil.example", "X-Script-Name: /evil", "Script-Name: /x",
    "Daphne-Root-Path: /evil", "X-Forwarded-Prefix: /evil", "X-Forwarded-For: x" + "1" * 9000,
)  # fmt: skip


def test_what_proxies_say_is_not_believed(attacker: Attacker) -> None:
    """WB-23. Neither another host, nor another path."""
    raw = attacker.exchange(request("GET", "/health", None, *PROXY_WORDS))
    assert json.loads(parse(raw).body)["status"] == "healthy" and b"evil" not in raw
    answer = sent(attacker, submission(MAIN_PART, headers=PROXY_WORDS))
    assert answer.status == 200
    assert answer.headers["location"] == f"/status/{answer.json['job_id']}"
    assert b"evil" not in answer.body


# --- the owner's token -------------------------------------------------------------------------

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


def test_whoever_cannot_show_the_token_ends_nothing(attacker: Attacker) -> None:
    """WB-12. Cancel, DELETE and the download that deletes, with every kind of Authorization."""
    with ran(attacker, python("open('x', 'w')")) as job:
        number, token = job["job_id"], job["owner_token"]
        words = {
            "token": token, "upper": token.swapcase(),
            "basic": base64.b64encode(f":{token}".encode()).decode(),
        }  # fmt: skip

        def check(case: tuple[str, int]) -> None:
            header, status = case
            headers = [header.format(**words)] if header else []
            for raw in (
                request("POST", f"/jobs/{number}/cancel", b"", *headers),
                request("DELETE", f"/jobs/{number}", None, *headers),
                request("GET", f"/download/{number}?delete=1", None, *headers),
            ):
                answer = attacker.exchange(raw)
                refused(answer, status, reason="not_owner")
                assert token.encode() not in answer
                assert ("www-authenticate" in parse(answer).headers) == (status == 401)

        assert each(((case[0], case) for case in BEARERS), check) == len(BEARERS)
        bearer = f"Authorization: Bearer {token}"
        for method, path in (("POST", "/jobs/x/cancel"), ("DELETE", "/jobs/x")):
            refused(attacker.exchange(request(method, path, b"", bearer)), 404)
            other = path.replace("x", number.upper())
            refused(attacker.exchange(request(method, other, b"", bearer)), 404)
        assert attacker.server.get(f"/status/{number}")["status"] == "completed"
        bearer = f"Authorization: bEaReR   {token}"
        cancel = request("POST", f"/jobs/{number}/cancel", b"x" * 100_000, bearer)
        answer = attacker.answer(cancel)
        assert (answer.status, answer.json["status"]) == (200, "completed")


# --- clients that leave ------------------------------------------------------------------------

LEAVERS = 1000


def leave(attacker: Attacker, count: int) -> None:
    """So many clients, each from an address of its own, leave in the middle of the head, of the
    body, of the answer or of a wait; one by a farewell, the next by a reset."""
    upload = submission(file("big", bytes(256 * 1024)), MAIN_PART)
    code = "print('x' * 9_000_000); open('o', 'wb').write(bytes(20 << 20))"
    with ran(attacker, python(code)) as job:
        number = job["job_id"]
        ways = [
            b"", b"POST /sub", upload[:150], upload[: len(upload) // 2], upload[:-1],
            json_submission({"files": {"main.py": "x" * 200_000}})[:-1000],
            request("GET", f"/logs/{number}"), request("GET", f"/download/{number}/o"),
            request("GET", f"/download/{number}?format=zip"), CHUNKED + b"100000\r\nx",
        ]  # fmt: skip
        said = set()
        for n in range(count):
            with Attacker(attacker.server).connect() as client:
                if n % 2:  # closing it is a reset
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raw = ways[n // 2 % len(ways)]
                client.sendall(raw)
                if raw.startswith(b"GET"):  # its answer has begun
                    said.add(client.recv(1000)[:15])
        assert said == {b"HTTP/1.1 200 OK"}


def test_a_thousand_clients_that_leave_in_the_middle_leave_nothing(attacker: Attacker) -> None:
    """WB-14, WB-20. Nothing is printed: the server's end sees to that, and the invariants to
    memory, descriptors and slots."""
    web = attacker.server.pids()["web"]
    before = memory_of(web)
    leave(attacker, LEAVERS)
    waits = python("import time; time.sleep(50)").replace(b"/submit HTTP", b"/submit?wait=60 HTTP")
    for _ in range(5):  # nobody else could end what they began
        with attacker.connect() as client:
            client.sendall(waits)
            assert eventually(lambda: _active(attacker) > 0, 20)
        assert eventually(lambda: _active(attacker) == 0, 20)
    with ran(attacker, submission(MAIN_PART)):
        pass
    assert eventually(lambda: memory_of(web).memfd_count <= before.memfd_count, 10)


def _active(attacker: Attacker) -> int:
    return int(attacker.ask("GET", "/stats").json["your_quota"]["active_jobs"])


# --- a server that fails, and one that has invited a site --------------------------------------

# What is broken in a copy of the repository: a door, an answer that has begun, the connection. The
# word is spelled backwards, since a traceback shows the line that raises.
FAULTS = f"""
def _break() -> None:
    from jobs.api import wire
    from jobs.api.request import Request
    from jobs.store import Store

    find, log_raw, length = Store.find, wire.log_raw, Request.gotLength

    def broken_find(self, job_id):
        if job_id.startswith("boom"):
            raise KeyError("{SESSION[::-1]}"[::-1], job_id)
        return find(self, job_id)

    def broken_log(*args):
        yield next(log_raw(*args))
        raise ZeroDivisionError("{SESSION[::-1]}"[::-1])

    def broken_length(self, size):
        if self.requestHeaders.hasHeader("X-Boom"):
            raise LookupError("{SESSION[::-1]}"[::-1], self.channel.peer)
        length(self, size)

    Store.find, wire.log_raw, Request.gotLength = broken_find, broken_log, broken_length

_break()
"""
INVITED = "https://good.example"


@pytest.fixture(scope="module")
def broken() -> Iterator[Server]:
    """Told to be in debug mode, and failing; it has invited one site. What it prints about its
    faults is types and lines of code, so that they can be mended: never a message, a path, an id or
    an address."""
    with checkout() as path:
        views = path / "jobs/api/urls.py"
        views.write_text(views.read_text() + FAULTS)
        server = Server("--allow-origin", INVITED, repository=path, env=BAIT)
        keeper, said = server.pids()["keeper"], server.banner
        try:
            yield server
        finally:
            assert server.end() == 0, server.banner
        assert not cgroups_of(keeper)
    new = server.banner.removeprefix(said)
    for kind in ("KeyError", "ZeroDivisionError", "LookupError"):
        assert f"Exception: {kind}" in new, new
    assert SESSION not in new and "boom-" not in new, new  # the source has no hyphen behind it
    assert not re.search(r"127\.\d+\.\d+\.\d+|job-[0-9a-f]{8}", new), new


def test_only_the_invited_site_is_let_in(attacker: Attacker, broken: Server) -> None:
    """WB-04. Its name before, behind or within another one's, in other letters, with another port
    or scheme is not its name; it is told its own name, never *."""
    client = Attacker(broken)
    others = [
        f"{INVITED}.evil.example", "https://evilgood.example", "https://evil.good.example",
        "http://good.example", f"{INVITED}:444", f"{INVITED}/", f"{INVITED}@evil.example",
        f"https://evil.example#{INVITED}", f"{INVITED} https://evil.example", "HTTPS://good.example",
        "https://GOOD.example", "https://good.example\u00ff", "null", "*", f"{INVITED}%00",
        "good.example",
    ]  # fmt: skip
    assert each(
        ((origin, f"Origin: {origin}") for origin in others),
        lambda header: check_foreign(client, header),
    ) == len(others)
    mine = f"Origin: {INVITED}"
    for raw in (
        request("GET", "/stats", None, mine, "Sec-Fetch-Site: cross-site"),
        request("OPTIONS", "/submit", None, mine, *PREFLIGHT),
        request("POST", "/jobs/x/cancel", b"", mine, "Sec-Fetch-Site: cross-site"),
    ):
        answer = client.answer(raw)
        assert answer.status in (200, 204, 404)
        assert answer.headers["access-control-allow-origin"] == INVITED
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers
    assert attacker.server is not broken


def until_the_end(client: Attacker, raw: bytes) -> bytes:
    """What comes back until the connection ends, which it does."""
    received = bytearray()
    with client.connect() as connection:
        connection.sendall(raw)
        with suppress(ConnectionResetError):
            while piece := connection.recv(65_536):
                received += piece
    return bytes(received)


def test_our_own_faults_tell_nothing(attacker: Attacker, broken: Server) -> None:
    """WB-14. A door that fails, an answer that fails when it has begun, a connection that fails,
    with DEBUG set in every way: no word of code, settings, paths, versions or of what was sent."""
    client = Attacker(broken)
    for path in (
        "/status/boom",
        "/logs/boom",
        "/outputs/boom",
        "/download/boom",
        "/download/boom/x",
    ):
        for headers in ((), (BROWSER,), ("X-Debug: 1", "Cookie: debug=1; sessionid=x")):
            raw = client.exchange(request("GET", f"{path}-{client.canary}?debug=1", None, *headers))
            assert raw.count(b"HTTP/1.1 ") == 1
            answer = parse(raw)
            assert (answer.status, answer.json["reason"]) == (500, "internal"), answer
            assert answer.headers["content-type"] == "application/problem+json"
            hardened(answer)
            assert not OURS.search(raw) and SESSION.encode() not in raw, raw
    job = client.start({"main.py": b"print('x' * 300_000)"}, canary=False)
    assert client.ask("GET", f"/status/{job}?wait=60").json["status"] == "completed"
    begun = until_the_end(client, request("GET", f"/logs/{job}?stream=stdout"))
    assert begun.startswith(b"HTTP/1.1 200 OK") and b"xxx" in begun, begun[:200]
    assert not begun.endswith(b"0\r\n\r\n"), "it looks whole"
    boom = request("POST", "/submit", multipart(MAIN_PART), FORM, "X-Boom: 1")
    failed = until_the_end(client, boom)
    assert b" 200 " not in failed
    for raw in (begun, failed):
        assert not OURS.search(raw) and SESSION.encode() not in raw, raw[-500:]
    for encoding in (b"\xff\xfe", b"%ff%fe%00", b"\xed\xa0\x80"):
        raw = client.exchange(request("GET", b"/status/boom" + encoding))
        assert not OURS.search(raw) and parse(raw).status in (400, 404, 500)
    assert broken.get("/health")["status"] == "healthy"
    assert attacker.server is not broken
