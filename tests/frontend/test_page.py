"""What the page promises and no browser is needed to see: nothing inline, nothing from elsewhere,
files of known types. That it works in a browser, tests/browser tells.
"""

import gzip
import hashlib
import re
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

from django.test import RequestFactory

from frontend import assets, policy, views, words
from jobs.api.middleware import HEADERS
from jobs.api.views import not_found
from sandbox.model import REASONS
from tests.jobs.test_api import ApiCase

ROOM = Path(views.__file__).parent
STATIC = [p for p in sorted(ROOM.glob("static/**/*.*")) if p.suffix != ".pyc"]
# What these facts are read from is ours. Other people's bundles name namespaces and manuals on the
# net; that nothing of theirs loads anything or becomes markup, the policy and tests/browser tell.
OURS = sorted(ROOM.glob("templates/**/*.html")) + [
    path for path in STATIC if path.parent != ROOM / "static/frontend/vendor"
]
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class Sources(unittest.TestCase):
    def test_nothing_comes_from_elsewhere(self) -> None:
        self.assertGreaterEqual(len(OURS), 3)
        for path in OURS:
            with self.subTest(path.name):
                text = path.read_text().replace("http://www.w3.org/2000/svg", "")
                self.assertNotRegex(text, r"""(?i)\w+://|["'(]//|@import""")
                if path.suffix != ".js":  # where it is a function of ours
                    self.assertNotRegex(text, r"(?i)url\(")

    def test_text_of_a_job_never_becomes_markup(self) -> None:
        dangerous = r"innerHTML|outerHTML|insertAdjacent|document\.write|srcdoc|\beval\b|Function\("
        for path in OURS:
            with self.subTest(path.name):
                self.assertNotRegex(path.read_text(), dangerous)

    def test_the_browser_keeps_the_theme_and_the_tab_what_was_written(self) -> None:
        kept = {
            "bar.js": {"localStorage"},  # the theme
            "main.js": {"localStorage"},
            "source.js": {"sessionStorage"},  # drafts
            "job.js": {"sessionStorage"},  # how to delete the job, for a reload
        }
        for path in OURS:
            with self.subTest(path.name):
                text = path.read_text()
                found = set(re.findall(r"\.cookie\b|localStorage|sessionStorage|indexedDB", text))
                self.assertLessEqual(found, kept.get(path.name, set()))


class Served(ApiCase):
    async def text(self, path: str = "/") -> str:
        response = await self.client.get(path, headers=BROWSER)
        self.assertEqual(response.status_code, 200, path)
        return str(response.content.decode())

    async def test_the_policy_allows_our_own_files_and_nothing_else(self) -> None:
        response = await self.client.get("/", headers=BROWSER)
        policy = dict(
            rule.strip().split(" ", 1) for rule in response["Content-Security-Policy"].split(";")
        )
        self.assertEqual(
            policy,
            {
                "default-src": "'none'",
                "script-src": "'self'",
                "style-src": "'self'",
                "img-src": "'self' blob: data:",
                "media-src": "blob:",
                "connect-src": "'self'",
                "frame-src": "'self'",
                "font-src": "'none'",
                "manifest-src": "'self'",
                "base-uri": "'none'",
                "form-action": "'self'",
                "frame-ancestors": "'none'",
                "require-trusted-types-for": "'script'",
                "trusted-types": "'none'",
            },
        )

    async def test_the_page_may_use_nothing_of_the_device_but_write_to_the_clipboard(self) -> None:
        response = await self.client.get("/", headers=BROWSER)
        rules = response["Permissions-Policy"].split(", ")
        self.assertEqual(
            [rule for rule in rules if not rule.endswith("=()")], ["clipboard-write=(self)"]
        )
        self.assertLessEqual({"camera=()", "microphone=()", "geolocation=()", "usb=()"}, set(rules))

    async def test_the_page_has_nothing_inline(self) -> None:
        text = await self.text()
        scripts = re.findall(r"<script.*?</script>", text, re.S)
        self.assertEqual(len(scripts), 1)
        for script in scripts:
            self.assertRegex(script, r'^<script type="module" src="/static/[\w./]+"></script>$')
        self.assertNotRegex(text, r"(?i)<style|\sstyle=|\son\w+=|javascript:|<base|<iframe")

    async def test_what_the_page_names_is_there_for_ever(self) -> None:
        names = re.findall(r'<(?:script|link)\b[^>]*(?:src|href)="([^"]+)"', await self.text())
        self.assertGreaterEqual(len(names), 3)
        for name in names:
            response = await self.client.get(name)
            self.assertEqual(response.status_code, 200, name)
            self.assertEqual(response["Cache-Control"], "public, max-age=31536000, immutable")

    async def test_the_page_itself_is_kept_by_nobody(self) -> None:
        response = await self.client.get("/", headers=BROWSER)
        self.assertEqual(response["Cache-Control"], "no-store")

    async def test_every_file_has_our_headers_and_its_tag(self) -> None:
        for path in STATIC:
            name = views.STATIC + path.relative_to(ROOM / "static").as_posix()
            response = await self.client.get(name)
            self.assertEqual(response.content, path.read_bytes(), name)
            for key, value in HEADERS.items():
                if key != "Cache-Control":
                    self.assertEqual(response[key], value, (name, key))
            tag = response["ETag"]
            self.assertEqual(tag, f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"')
            same = await self.client.get(name, headers={"if-none-match": f'"x", {tag}'})
            self.assertEqual((same.status_code, same.content), (304, b""), name)

    async def test_files_come_packed_to_whoever_takes_gzip(self) -> None:
        name = f"{views.STATIC}frontend/style.css"
        plain = await self.client.get(name)
        self.assertEqual(plain["Vary"], "Accept-Encoding")
        for takes in ("gzip", "br, GZIP;q=0.5", "deflate , gzip ;q=1.0"):
            packed = await self.client.get(name, headers={"accept-encoding": takes})
            self.assertEqual(packed["Content-Encoding"], "gzip", takes)
            self.assertEqual(gzip.decompress(packed.content), plain.content)
            self.assertEqual(packed["Content-Type"], plain["Content-Type"])
            self.assertEqual(packed["Vary"], "Accept-Encoding")
            self.assertNotEqual(packed["ETag"], plain["ETag"])
        for takes in ("", "br", "gzip;q=0", "gzip; q=0.00", "gzipped", "*"):
            response = await self.client.get(name, headers={"accept-encoding": takes})
            self.assertNotIn("Content-Encoding", response, takes)

    async def test_no_answer_sets_a_cookie(self) -> None:
        for name in ("/", f"{views.STATIC}frontend/style.css", "/static/x", "/j/x"):
            response = await self.client.get(name, headers=BROWSER)
            self.assertFalse(response.cookies, name)
            self.assertNotIn("Set-Cookie", response)

    async def test_paths_open_nothing(self) -> None:
        for name in (
            "views.py",
            "../views.py",
            "..%2fviews.py",
            "%2e%2e/views.py",
            "frontend/../../views.py",
            "frontend//style.css",
            "/frontend/style.css",
            "./frontend/style.css",
            "frontend/style.css/",
            "frontend/style.css%00",
            "frontend/style.css%0a",
            "frontend/STYLE.CSS",
            "frontend\\style.css",
            "frontend",
            "",
        ):
            for path in (f"/static/{name}", f"{views.STATIC}{name}", f"/static/0/{name}"):
                response = await self.client.get(path)
                self.assertEqual(response.status_code, 404, path)
                self.assertEqual(response.json()["reason"], "unknown_path", path)

    async def test_a_name_of_any_form_is_only_looked_up(self) -> None:
        # past the URL patterns, which already refuse some of them
        for name in ("/etc/passwd", "\0", "../templates/frontend/index.html", "\udcff", "a" * 5000):
            for path in (name, f"{assets.VERSION}/{name}"):
                response = await views.asset(not_found)(RequestFactory().get("/"), path)
                self.assertEqual(response.status_code, 404, repr(path)[:40])


class OtherServers(ApiCase):
    async def ask(self, query: str, path: str = "/") -> Any:
        return await self.client.get(f"{path}?{query}", headers=BROWSER)

    async def test_the_page_may_be_pointed_at_another_server(self) -> None:
        for path in ("/", "/j/none"):
            for origin, socket in (
                ("https://other.example", "wss://other.example"),
                ("http://127.0.0.1:8444", "ws://127.0.0.1:8444"),
                ("http://a:65535", "ws://a:65535"),
            ):
                response = await self.ask(f"server={origin}", path)
                self.assertEqual(response.status_code, 200, origin)
                policy = response["Content-Security-Policy"].split("; ")
                self.assertIn(f"connect-src 'self' {origin} {socket}", policy)
                self.assertIn(f"frame-src 'self' {origin}", policy)
                self.assertIn("img-src 'self' blob: data:", policy)
                text = response.content.decode()
                self.assertIn(f'<meta name="sandrun-server" content="{origin}">', text)
                self.assertNotIn("<form method", text)
        for query in ("", "server="):
            text = (await self.ask(query)).content.decode()
            self.assertIn('<meta name="sandrun-server" content="">', text)

    async def test_what_is_no_origin_is_refused_with_a_sentence(self) -> None:
        for server in (
            *("other.example", "//other.example", "ftp://other.example", "javascript:alert(1)"),
            *("https://other.example/", "https://other.example/x", "https://other.example?x"),
            *("https://u@other.example", "https://u:p@other.example", "https://*.other.example"),
            *("https://other.example;script-src *", "https://other.example 'unsafe-inline'"),
            *("https://other.example\n", "https://other.example\r\nX: 1", "https://Other.example"),
            *("https://other.example:", "https://other.example:0", "https://other.example:65536"),
            *("https://other.example:08", "https://.example", "https://a..b", "https://-a.example"),
            *("https://[::1]", "https://", "https:", " https://a", "https://a,https://b", "*"),
            *(
                "https://" + "a" * 64,
                "https://" + "a." * 130 + "a",
                "https://\u00fc.example",
                "null",
            ),
        ):
            for path in ("/", "/j/none"):
                response = await self.ask(urlencode({"server": server}), path)
                self.assertEqual(response.status_code, 400, server)
                self.assertIn("?server= must be like", response.content.decode())
                self.assertNotIn("<script", response.content.decode())
                self.assertEqual(response["Content-Security-Policy"], policy.content())
        response = await self.ask("server=https://a.example&server=https://b.example")
        self.assertEqual(response.status_code, 400)


class Words(unittest.TestCase):
    def test_of_a_log_the_text_is_left(self) -> None:
        for text, left in (
            ("a\x1b[1;31mb\x1b[0mc\x1b[K", "abc"),
            ("\x1b]0;title\x07x\x1b]8;;y:z\x1b\\l\x1bPq\x1b\\", "xl"),
            ("a\x1b]0;" + "b" * 5000, "a" + "0;" + "b" * 5000),
            ("\x1b(B\x1b=\x1b[", ""),
            ("one\r\ntwo\rthree\ttab\n", "one\ntwo\u240dthree\ttab\n"),
            (
                "\0\x08\x7f\x85\u202e\u2066\u200b\ufeff\U000e0041",
                "\u2400\u2408\u2421" + "\ufffd" * 6,
            ),
            ("\u00fc \U0001f600 \u0645", "\u00fc \U0001f600 \u0645"),
        ):
            self.assertEqual(words.log(text), left, ascii(text)[:60])
        self.assertEqual(words.name("a\tb\nc\u202ed"), "a\u2409b\u240ac\ufffdd")

    def test_every_way_to_end_has_a_sentence(self) -> None:
        how = {"wall_time_ms": 1234, "exit_code": 3, "memory_peak_mb": 512}
        job = {"status": "failed", "execution_metadata": how, "signal": 11, "stage": "run"}
        told = {reason: words.state({**job, "reason": reason}) for reason in (*REASONS, "new")}
        self.assertEqual(len(set(told.values())), len(told))
        self.assertEqual(told["exit"], "Failed with exit code 3 after 1.2 s")
        compiled = words.state({**job, "reason": "exit", "stage": "compile"})
        self.assertTrue(compiled.endswith(", while it was compiled"))


class Assets(unittest.TestCase):
    def files(self, **contents: str) -> dict[str, assets.Asset]:
        with TemporaryDirectory() as folder:
            for name, text in contents.items():
                path = Path(folder, name.replace("__", "/").replace("_", "."))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return assets.read(Path(folder))

    def test_each_kind_has_its_type(self) -> None:
        found = self.files(a_js="", b_mjs="", c_css="", d_svg="", e_txt="", f_json="")
        types = {name: asset.type.partition(";")[0] for name, asset in found.items()}
        self.assertEqual(
            types,
            {
                "a.js": "text/javascript",
                "b.mjs": "text/javascript",
                "c.css": "text/css",
                "d.svg": "image/svg+xml",
                "e.txt": "text/plain",
                "f.json": "application/json",
            },
        )

    def test_examples_are_text_whatever_they_are_called(self) -> None:
        names = ("py", "js", "sh", "c", "html", "csv")
        found = self.files(**{f"frontend__examples__a_{name}": "x" for name in names})
        self.assertEqual(len(found), len(names))
        self.assertEqual({asset.type for asset in found.values()}, {assets.TEXT})

    def test_what_no_browser_asks_for_is_left_out(self) -> None:
        self.assertEqual(self.files(_js="", a_py="", b_html="", frontend__examples___x=""), {})

    def test_another_byte_is_another_version(self) -> None:
        versions = {
            assets.version(self.files(a_js="1", b_js="2")),
            assets.version(self.files(a_js="1", b_js="3")),
            assets.version(self.files(a_js="1", c_js="2")),
            assets.version(self.files(a_js="1")),
        }
        self.assertEqual(len(versions), 4)
        self.assertEqual(len({assets.version(self.files(a_js="1")) for _ in range(2)}), 1)

    def test_what_a_module_imports_is_known_before_it_is_run(self) -> None:
        found = self.files(
            frontend__main_js="""
                // import { no } from "./never.js";
                import { a } from "./a.js";
                import b, {
                  c,
                } from './panes/b.js';
                import "./missing.js";
                import * as preact from "./vendor/p.js"
                const later = await import("./late.js");
                export { d } from "./a.js";
            """,
            frontend__a_js='import{x}from"./panes/b.js";import("./late.js")',
            frontend__panes__b_js='export * from "../deep.js";\nimport "../main.js";',
            frontend__deep_js="",
            frontend__never_js="",
            frontend__late_js="",
            frontend__vendor__p_js="",
        )
        self.assertEqual(
            assets.needs(found, "frontend/main.js"),
            [
                "frontend/a.js",
                "frontend/panes/b.js",
                "frontend/vendor/p.js",
                "frontend/deep.js",
            ],
        )
