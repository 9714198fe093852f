"""The ground itself: each thing that no page may do does fail its test."""

import pytest
from playwright.sync_api import Page

from tests.browser.ground import Faults, axe, stage
from tests.journeys.server import Server, eventually


def hears(page: Page, faults: Faults, words: str) -> bool:
    """Whether such a fault is seen; then none is held against this test any more."""

    def heard() -> bool:
        page.evaluate("new Promise(requestAnimationFrame)")  # lets events of the browser in
        faults.look(page.context)
        return words in "\n".join(faults.seen)

    found = eventually(heard, 5)
    faults.allow("")
    return found


class TestGround:
    def test_a_stage_has_the_policy_of_the_page_and_no_faults(
        self, page: Page, server: Server
    ) -> None:
        stage(page, server, "<p>Nothing</p>")
        axe(page)

    @pytest.mark.parametrize(
        ("does", "words"),
        [
            ("console.error('no')", "console: no"),
            ("setTimeout(() => { throw new Error('thrown') })", "uncaught: Error: thrown"),
            ("document.body.setAttribute('style', 'color: red')", "policy: style-src-attr forbids"),
            ("document.body.innerHTML = '<p>'", "policy: require-trusted-types-for forbids"),
            ("import('/none.js').catch(() => 0)", "404 for a part of the page: "),
            ("fetch('http://127.0.0.1:9/x').catch(() => 0)", "policy: connect-src forbids"),
            ("document.cookie = 'a=1'", "cookie a"),
            ("localStorage.setItem('job', '1')", "localStorage has job"),
            ("indexedDB.open('store')", "indexedDB has store"),
        ],
    )
    def test_what_no_page_may_do_is_seen(
        self, page: Page, server: Server, faults: Faults, does: str, words: str
    ) -> None:
        stage(page, server, "")
        page.evaluate(f"() => {{ try {{ {does} }} catch {{}} }}")
        assert hears(page, faults, words), faults.seen

    def test_a_request_to_elsewhere_is_seen(self, page: Page, url: str, faults: Faults) -> None:
        faults.origins.clear()
        page.goto(url)
        assert hears(page, faults, f"request to elsewhere: {url}/")

    def test_the_theme_may_be_kept(self, page: Page, server: Server) -> None:
        stage(page, server, "")
        page.evaluate("localStorage.setItem('theme', 'dark')")

    def test_an_answer_with_an_error_is_no_fault(self, page: Page, server: Server) -> None:
        stage(page, server, "")
        assert page.evaluate("async () => (await fetch('/status/none')).status") == 404

    def test_axe_names_what_is_wrong_and_where(self, page: Page, server: Server) -> None:
        stage(page, server, "<input id='bare'>")
        with pytest.raises(AssertionError, match=r"(?s)label \(critical\).*#bare"):
            axe(page)

    def test_a_fault_that_is_not_allowed_fails_the_test(self, faults: Faults) -> None:
        faults.seen += ["console: one", "console: two"]
        faults.allow("one$")
        with pytest.raises(pytest.fail.Exception, match="console: two"):
            faults.check()
        faults.seen.pop()
        faults.check()
