"""What the page promises and no browser is needed to see: nothing inline, nothing from elsewhere, a
closed list of files. That it works in a browser, no test here tells.
"""

import re
import unittest
from pathlib import Path

from django.test import RequestFactory

from frontend import views
from jobs.api.middleware import HEADERS
from jobs.api.views import not_found
from tests.jobs.test_api import ApiCase

ROOM = Path(views.__file__).parent
FILES = sorted(ROOM.glob("templates/**/*.html")) + sorted(ROOM.glob("static/**/*.*"))
TYPES = {"page.js": "text/javascript; charset=utf-8", "style.css": "text/css; charset=utf-8"}
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class Sources(unittest.TestCase):
    def test_nothing_comes_from_elsewhere(self) -> None:
        self.assertGreaterEqual(len(FILES), 3)
        for path in FILES:
            with self.subTest(path.name):
                self.assertNotRegex(path.read_text(), r"""(?i)\w+://|["'(]//|@import|url\(""")

    def test_text_of_a_job_never_becomes_markup(self) -> None:
        dangerous = r"innerHTML|outerHTML|insertAdjacent|document\.write|srcdoc|\beval\b|Function\("
        for path in FILES:
            with self.subTest(path.name):
                self.assertNotRegex(path.read_text(), dangerous)

    def test_nothing_is_kept_in_the_browser(self) -> None:
        for path in FILES:
            with self.subTest(path.name):
                self.assertNotRegex(
                    path.read_text(), r"cookie\b|localStorage|sessionStorage|indexedDB"
                )

    def test_the_script_finds_every_element_that_it_names(self) -> None:
        script = (ROOM / "static/frontend/page.js").read_text()
        page = (ROOM / "templates/frontend/index.html").read_text()
        known = set(re.findall(r'\bid="([\w-]+)"', page))
        self.assertLessEqual(set(re.findall(r'\$\("([\w-]+)"\)', script)), known)


class Served(ApiCase):
    async def test_the_policy_allows_our_own_files_and_nothing_else(self) -> None:
        response = await self.client.get("/", headers=BROWSER)
        policy = dict(
            rule.strip().split(" ", 1) for rule in response["Content-Security-Policy"].split(";")
        )
        self.assertEqual(policy.pop("require-trusted-types-for"), "'script'")
        self.assertEqual(policy["default-src"], "'none'")
        for name in ("base-uri", "form-action", "frame-ancestors", "trusted-types"):
            self.assertEqual(policy[name], "'none'", name)
        self.assertLessEqual(set(policy.values()), {"'none'", "'self'"})

    async def test_the_page_has_nothing_inline(self) -> None:
        text = (await self.client.get("/", headers=BROWSER)).content.decode()
        scripts = re.findall(r"<script.*?</script>", text, re.S)
        self.assertEqual(len(scripts), 1)
        for script in scripts:
            self.assertRegex(script, r'^<script type="module" src="/static/[\w./]+"></script>$')
        self.assertNotRegex(text, r"(?i)<style|\sstyle=|\son\w+=|javascript:")

    async def test_what_the_page_names_is_there(self) -> None:
        text = (await self.client.get("/", headers=BROWSER)).content.decode()
        names = re.findall(r'(?:src|href)="([^"]+)"', text)
        self.assertEqual(len(names), 2)
        for name in names:
            self.assertEqual((await self.client.get(name)).status_code, 200, name)

    async def test_every_file_has_its_type_and_our_headers(self) -> None:
        served = [path for path in FILES if path.suffix != ".html"]
        self.assertEqual({path.name for path in served}, TYPES.keys())
        for path in served:
            name = f"/static/{path.relative_to(ROOM / 'static').as_posix()}"
            response = await self.client.get(name)
            self.assertEqual(response.content, path.read_bytes())
            self.assertEqual(response["Content-Type"], TYPES[path.name])
            self.assertEqual({key: response[key] for key in HEADERS}, HEADERS)

    async def test_no_answer_sets_a_cookie(self) -> None:
        for name in ("/", "/static/frontend/page.js", "/static/x"):
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
            "frontend//page.js",
            "/frontend/page.js",
            "./frontend/page.js",
            "frontend/page.js/",
            "frontend/page.js%00",
            "frontend/page.js%0a",
            "frontend/PAGE.JS",
            "frontend\\page.js",
            "frontend",
            "",
        ):
            response = await self.client.get(f"/static/{name}")
            self.assertEqual(response.status_code, 404, name)
            self.assertEqual(response.json()["reason"], "unknown_path", name)

    async def test_a_name_of_any_form_is_only_looked_up(self) -> None:
        # past the URL patterns, which already refuse some of them
        for name in ("/etc/passwd", "\0", "../templates/frontend/index.html", "\udcff", "a" * 5000):
            response = await views.asset(not_found)(RequestFactory().get("/"), name)
            self.assertEqual(response.status_code, 404, repr(name)[:40])
