"""The page as a person sees it: what stands in it, by its words and roles."""

import re

from playwright.sync_api import Locator, Page, expect


class Shown:
    def __init__(self, page: Page, address: str, code: str | None = None) -> None:
        self.page = page
        page.goto(address)
        self.run_button.wait_for()
        if code is not None:
            self.write(code)

    @property
    def run_button(self) -> Locator:
        return self.page.get_by_role("region", name="Run").get_by_role("button").first

    @property
    def editor(self) -> Locator:
        return self.page.get_by_role("textbox", name="Code", exact=True)

    @property
    def log(self) -> Locator:
        return self.page.get_by_role("log")

    @property
    def state(self) -> Locator:
        return self.page.locator(".state")

    def button(self, name: str | re.Pattern[str], within: Locator | None = None) -> Locator:
        return (within or self.page).get_by_role("button", name=name)

    def tab(self, name: str) -> Locator:
        return self.page.get_by_role("tab", name=name)

    def write(self, code: str) -> None:
        """In place of what is in the editor, as if pasted."""
        self.editor.click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(code)

    def unfold(self, title: str) -> None:
        self.page.locator("summary", has_text=title).click()

    def limit(self, name: str, value: str) -> None:
        self.unfold("Limits")
        self.page.get_by_label(re.compile(rf"^{name}\s")).fill(value)

    def run(self, code: str | None = None) -> None:
        if code is not None:
            self.write(code)
        self.run_button.click()

    def says(self, words: str | re.Pattern[str], seconds: float = 20) -> None:
        expect(self.state).to_contain_text(words, timeout=seconds * 1000)

    def lines(self) -> list[str]:
        """Of the log, without what only a screen reader hears."""
        return [line for line in self.log.inner_text().split("\n") if line]

    def job_id(self) -> str:
        found = re.search(r"/j/([\w-]+)", self.page.url)
        assert found, self.page.url
        return found[1]
