"""The editor, alone on a stage: written into and left by keyboard, as CodeMirror and as a plain
text field, with no breach of the policy (the ground sees to that).
"""

from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.ground import Faults, axe, stage
from tests.journeys.server import Server

OPEN = """async ([modules, options]) => {
  const { createEditor } = await import(`${modules}editor.js`);
  Object.assign(window, { changes: [], runs: 0, keys: [] });
  document.addEventListener("keydown", (event) => keys.push(event.key));
  const parent = document.querySelector("#parent");
  parent.style.height = "300px";
  window.editor = createEditor({
    parent, onChange: (text) => changes.push(text), onRun: () => { runs += 1; }, ...options,
  });
}"""
BODY = "<button id='before'>Before</button><div id='parent'></div><button id='after'>After</button>"
CODE = "#parent .cm-editor"
FIELD = "#parent textarea"
PROGRAMS = {  # by interpreter, each with a keyword in it
    "python3": ("def f(): return 'x'", "def"),
    "node": ("const x = 'x';", "const"),
    "bash": ("if true; then echo 'x'; fi", "if"),
    "sh": ("if true; then echo 'x'; fi", "if"),
    "c": ("int main(void) { return 0; }", "return"),
    "cpp": ("int main() { return 0; }", "return"),
    "perl": ("if (1) { print 'x'; }", "if"),
    "ruby": ("def f; 'x'; end", "def"),
    "lua": ("local x = 'x'", "local"),
    "Rscript": ("f <- function(x) x", "function"),
    "R": ("f <- function(x) x", "function"),
    "go": ("package main", "package"),
    "rust": ("fn main() {}", "fn"),
    "java": ("class Main {}", "class"),
}


def opened(page: Page, server: Server, ready: str = CODE, **options: Any) -> str:
    """The folder of the modules, once there is an editor that looks so."""
    modules = stage(page, server, BODY)
    page.evaluate(OPEN, [modules, options])
    page.wait_for_selector(ready)
    return modules


def text(page: Page) -> str:
    return str(page.evaluate("editor.text()"))


def focus(page: Page) -> str:
    """The id of what has the focus, or of what holds it in its shadow."""
    return str(page.evaluate("(document.activeElement.closest('[id]') ?? {}).id"))


@pytest.fixture(params=[False, True], ids=["code", "plain"])
def editor(request: pytest.FixtureRequest, page: Page, server: Server) -> Page:
    """A page with an editor of each kind."""
    opened(page, server)
    if request.param:
        page.evaluate("editor.setPlain(true)")
        page.wait_for_selector(FIELD)
    return page


class TestBothKinds:
    def test_what_is_typed_is_the_text(self, editor: Page) -> None:
        editor.focus("#before")
        editor.keyboard.press("Tab")
        editor.keyboard.type("x = 1\nprint(x)")
        assert text(editor) == "x = 1\nprint(x)"
        assert editor.evaluate("changes.at(-1)") == "x = 1\nprint(x)"

    def test_a_text_that_is_set_is_not_a_change(self, editor: Page) -> None:
        editor.evaluate("editor.setText('one\\ntwo')")
        assert text(editor) == "one\ntwo"
        assert editor.evaluate("changes") == []

    def test_another_text_cannot_be_undone_into_the_one_before(self, editor: Page) -> None:
        editor.evaluate("editor.setText('secret of another file'); editor.focus()")
        editor.keyboard.type("x")
        editor.evaluate("editor.setText('this file'); editor.focus()")
        editor.keyboard.press("Control+z")
        assert text(editor) == "this file"

    def test_control_or_command_and_enter_runs_once(self, editor: Page) -> None:
        editor.evaluate("editor.setText('x'); editor.focus()")
        for runs, key in ((1, "Control+Enter"), (2, "Meta+Enter")):
            editor.keyboard.press(key)
            assert editor.evaluate("runs") == runs
        assert text(editor) == "x"
        assert "Enter" not in editor.evaluate("keys")  # the page would run it again

    def test_a_line_is_shown_with_the_cursor_in_it(self, editor: Page) -> None:
        editor.evaluate(
            "editor.setText(Array.from({length: 900}, (_, i) => `${i + 1};`).join('\\n'))"
        )
        for wanted, line in ((500, "500"), (0, "1"), (5000, "900")):
            editor.evaluate(f"editor.showLine({wanted})")
            editor.keyboard.type("here ")
            assert f"\nhere {line};\n" in f"\n{text(editor)}\n"
        editor.evaluate("editor.showLine(500)")
        field, shown = editor.locator(FIELD), editor.locator(".cm-line", has_text="here 500;")
        if field.count():
            middle = field.evaluate("e => (e.scrollTop + e.clientHeight / 2) / e.scrollHeight")
            assert 0.54 < middle < 0.57
        else:
            expect(shown).to_be_in_viewport()

    def test_line_ends_stay_as_they_were(self, editor: Page) -> None:
        for given in ("a\r\nb\r\n", "a\nb\n", "a", ""):
            editor.evaluate("text => editor.setText(text)", given)
            assert text(editor) == given

    def test_it_has_the_name_that_it_was_given(self, editor: Page) -> None:
        expect(editor.get_by_role("textbox", name="Code")).to_be_visible()

    def test_axe_finds_nothing(self, editor: Page) -> None:
        editor.evaluate("editor.setText('def f():\\n    return 1  # one\\n'); editor.focus()")
        axe(editor)

    def test_nothing_is_left_of_one_that_is_destroyed(self, editor: Page) -> None:
        editor.evaluate("editor.destroy()")
        assert editor.evaluate("document.querySelector('#parent').childNodes.length") == 0


class TestCode:
    def test_tab_indents_and_shift_tab_takes_it_back(self, page: Page, server: Server) -> None:
        opened(page, server, text="x", language="python3")
        page.evaluate("editor.focus()")
        page.keyboard.press("Tab")
        assert text(page) == "    x"
        page.keyboard.press("Shift+Tab")
        assert text(page) == "x"

    def test_escape_then_tab_leaves_however_long_it_takes(self, page: Page, server: Server) -> None:
        opened(page, server, text="x", language="go")
        page.evaluate("editor.focus()")
        page.clock.install()
        page.keyboard.press("Escape")
        page.clock.fast_forward(60_000)
        page.keyboard.press("Tab")
        assert (focus(page), text(page)) == ("after", "x")
        page.keyboard.press("Shift+Tab")  # back in, where Tab indents again
        page.keyboard.press("Tab")
        assert text(page) == "\tx"
        page.keyboard.press("Escape")
        page.keyboard.press("Shift+Tab")
        assert focus(page) == "before"

    def test_another_key_after_escape_lets_tab_indent_again(
        self, page: Page, server: Server
    ) -> None:
        opened(page, server, language="python3")
        page.evaluate("editor.focus()")
        page.keyboard.press("Escape")
        page.keyboard.type("x")
        page.keyboard.press("Home")
        page.keyboard.press("Tab")
        assert text(page) == "    x"

    def test_keywords_are_seen_in_every_language(self, page: Page, server: Server) -> None:
        opened(page, server)
        colour = page.evaluate("getComputedStyle(document.documentElement).color")
        expect(page.locator(".cm-content")).to_have_css("color", colour)
        for name, (code, word) in PROGRAMS.items():
            page.evaluate("editor.setLanguage('')")
            page.evaluate("code => editor.setText(code)", code)
            keyword = page.locator(".tok-keyword", has_text=word).first
            expect(keyword).to_have_count(0)
            page.evaluate("name => editor.setLanguage(name)", name)
            expect(keyword).to_have_css("color", "rgb(102, 57, 186)")
        known = {item["name"] for item in server.get("/environments")["environments"]}
        assert known - PROGRAMS.keys() <= {"php"}  # which CodeMirror has no such mode for

    def test_a_language_that_nobody_knows_is_plain(self, page: Page, server: Server) -> None:
        opened(page, server, text="def f(): return 1", language="python3")
        for name in ("php", "cobol", "", "__proto__"):
            page.evaluate("editor.setLanguage('python3')")
            expect(page.locator(".tok-keyword").first).to_be_visible()
            page.evaluate("name => editor.setLanguage(name)", name)
            expect(page.locator(".tok-keyword")).to_have_count(0)

    def test_what_nobody_would_see_is_marked(self, page: Page, server: Server) -> None:
        unseen = (
            "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u2060\ufeff\u00ad\x07"
        )
        opened(page, server, text=f"a{unseen}b")
        expect(page.locator(".cm-specialChar")).to_have_count(len(unseen))
        assert text(page) == f"a{unseen}b"

    def test_search_is_found_by_axe_to_be_right(self, page: Page, server: Server) -> None:
        opened(page, server, text="one two one # three", language="python3")
        page.evaluate("editor.focus()")
        page.keyboard.press("Control+f")
        page.keyboard.type("one")
        expect(page.locator(".cm-searchMatch")).to_have_count(2)
        axe(page)
        page.keyboard.press("Escape")
        expect(page.locator(".cm-search")).to_have_count(0)

    def test_on_a_dark_phone_it_is_dark_and_axe_finds_nothing(
        self, dark_phone: Page, server: Server
    ) -> None:
        opened(dark_phone, server, text="def f():  # one\n    return 'x', 1\n", language="python3")
        expect(dark_phone.locator(".tok-keyword").first).to_have_css("color", "rgb(188, 140, 255)")
        axe(dark_phone)
        assert dark_phone.evaluate("document.documentElement.scrollWidth <= innerWidth")


class TestLoading:
    def test_what_was_typed_before_codemirror_came_goes_on_in_it(
        self, page: Page, server: Server
    ) -> None:
        held: list[Route] = []
        page.route("**/vendor/codemirror.js", lambda route: held.append(route))
        with page.expect_request("**/vendor/codemirror.js"):
            opened(page, server, FIELD, language="python3")
        page.evaluate("editor.focus()")
        page.keyboard.type("if 1: prit")
        page.keyboard.press("ArrowLeft")
        held.pop().continue_()
        page.wait_for_selector(CODE)
        page.keyboard.type("n")
        assert text(page) == "if 1: print"
        assert page.evaluate("changes.at(-1)") == "if 1: print"
        expect(page.locator(".tok-keyword", has_text="if")).to_be_visible()

    def test_where_it_cannot_be_loaded_the_field_stays(
        self, page: Page, server: Server, faults: Faults
    ) -> None:
        faults.allow("net::ERR_FAILED.*codemirror.js")
        page.route("**/vendor/codemirror.js", lambda route: route.abort())
        with page.expect_event("requestfailed"):
            opened(page, server, FIELD, text="x")
        page.evaluate("editor.setLanguage('node'); editor.focus()")
        page.keyboard.type("y")
        assert text(page) == "yx"
        expect(page.locator(CODE)).to_have_count(0)

    def test_plain_and_back_keeps_text_and_cursor(self, page: Page, server: Server) -> None:
        opened(page, server, text="one three", language="python3")
        page.evaluate("editor.focus()")
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        page.evaluate("editor.setPlain(true)")
        page.keyboard.type("two ")
        expect(page.locator(CODE)).to_have_count(0)
        page.evaluate("editor.setPlain(false)")
        page.wait_for_selector(CODE)
        expect(page.locator(FIELD)).to_have_count(0)
        page.keyboard.type("and ")
        assert text(page) == "one two and three"

    def test_who_wants_it_plain_at_once_never_loads_codemirror_over_it(
        self, page: Page, server: Server
    ) -> None:
        held: list[Route] = []
        page.route("**/vendor/codemirror.js", lambda route: held.append(route))
        with page.expect_request("**/vendor/codemirror.js"):
            modules = opened(page, server, FIELD)
        page.evaluate("editor.setPlain(true)")
        with page.expect_response("**/vendor/codemirror.js"):
            held.pop().continue_()
        page.evaluate("path => import(path)", f"{modules}vendor/codemirror.js")
        expect(page.locator(FIELD)).to_be_visible()
        expect(page.locator(CODE)).to_have_count(0)
