"""Write, run, watch, take, gone: in a real browser, against a real server."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import NewPage
from tests.browser.ground import Faults
from tests.browser.shown import Shown
from tests.client.cutting import Proxy
from tests.journeys.server import Server

COUNT = "import time\nfor n in range(60):\n    print('line', n, flush=True)\n    time.sleep(0.03)\n"
FOREVER = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(1)\n"


def lines_of(shown: Shown, word: str) -> list[str]:
    return re.findall(rf"{word} \d+", shown.log.inner_text())


class TestFirstMinute:
    def test_a_newcomer_runs_gets_a_plot_and_deletes_it_in_three_presses(
        self, page: Page, url: str, server: Server
    ) -> None:
        shown = Shown(page, url)
        page.keyboard.press("Control+Enter")
        shown.says("Finished in")
        picture = page.get_by_role("img", name="plot.svg")
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        with page.expect_download() as taken:
            page.get_by_role("link", name="Download plot.svg").click()
        assert Path(taken.value.path()).read_bytes().startswith(b"<svg")
        job = shown.job_id()
        shown.button("Delete now").click()
        shown.button("Delete now", page.get_by_role("dialog")).click()
        shown.says("Deleted at")
        shown.says(f"GET /status/{job} → 404 Not Found")
        assert server.request("GET", f"/status/{job}")[0] == 404
        assert shown.lines() == []

    def test_the_keyboard_alone_does_it_all(self, page: Page, url: str) -> None:
        shown = Shown(page, url)
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.shadowRoot ? 'editor' : ''") == "editor":
                break
        page.keyboard.press("Control+a")
        page.keyboard.insert_text("open('out.txt', 'w').write('by keys')\nprint('typed')")
        page.keyboard.press("Escape")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.shadowRoot") is None
        page.keyboard.press("Control+Enter")
        shown.says("Finished in")
        assert shown.lines() == ["typed"]
        shown.tab("Log").focus()
        page.keyboard.press("ArrowRight")
        expect(shown.tab("Files")).to_be_focused()
        expect(shown.tab("Files")).to_have_attribute("aria-selected", "true")
        expect(page.get_by_role("tabpanel")).to_contain_text("by keys")
        shown.button("Delete now").focus()
        page.keyboard.press("Enter")
        expect(shown.button("Delete now", page.get_by_role("dialog"))).to_be_focused()
        page.keyboard.press("Enter")
        shown.says("Deleted at")
        expect(page.get_by_role("dialog")).to_be_hidden()

    def test_question_mark_tells_the_keys_and_gives_the_focus_back(
        self, page: Page, url: str
    ) -> None:
        shown = Shown(page, url)
        shown.tab("Log").focus()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_contain_text("Ctrl Enter")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(shown.tab("Log")).to_be_focused()


class TestGiven:
    def test_a_folder_is_uploaded_with_its_paths_and_without_its_secrets(
        self, page: Page, url: str, tmp_path: Path
    ) -> None:
        folder = tmp_path / "project"
        (folder / "pkg/deep").mkdir(parents=True)
        (folder / "main.py").write_text(
            "from pkg.deep.mod import word; print(word)\nimport os\nprint(sorted(os.listdir('.')))"
        )
        (folder / "pkg/deep/mod.py").write_text("word = 'deep'")
        (folder / ".env").write_text("SECRET=1")
        shown = Shown(page, url)
        page.locator("input[webkitdirectory]").set_input_files(folder)
        expect(page.get_by_text("Withheld")).to_contain_text(".env")
        shown.run()
        shown.says("Finished in")
        assert shown.lines() == ["deep", "['main.py', 'pkg']"]

    def test_arguments_are_words_as_in_a_shell(self, page: Page, url: str) -> None:
        shown = Shown(page, url, "import sys; print(sys.argv[1:], sys.stdin.read())")
        shown.unfold("Arguments")
        field = page.get_by_label("As in a shell")
        field.fill("--n 3 'two words")
        shown.run()
        expect(page.get_by_role("alert")).to_contain_text("Arguments")
        field.fill("--n 3 'two words'")
        shown.unfold("Standard input")
        page.get_by_label("What the program reads").fill("read me")
        shown.run()
        shown.says("Finished in")
        assert shown.lines() == ["['--n', '3', 'two words'] read me"]

    def test_another_language_has_its_own_draft(self, page: Page, url: str) -> None:
        shown = Shown(page, url, "print('mine')")
        page.get_by_label("Language").select_option("node")
        expect(shown.editor).to_contain_text("console.log")
        shown.run()
        shown.says("Finished in")
        assert shown.lines() == ["Hello, Sandrun!"]
        page.get_by_label("Language").select_option("python3")
        expect(shown.editor).to_contain_text("print('mine')")

    def test_a_reload_keeps_the_code_and_a_new_tab_has_none_of_it(
        self, page: Page, url: str
    ) -> None:
        shown = Shown(page, url, "print('kept')")
        page.reload()
        expect(shown.editor).to_contain_text("print('kept')")
        assert page.evaluate("localStorage.length") == 0

    @pytest.mark.parametrize("name", ["colours", "words", "project", "files", "threads"])
    def test_every_example_runs(self, page: Page, url: str, name: str) -> None:
        shown = Shown(page, url)
        page.get_by_label("Example").select_option(name)
        expect(shown.editor).not_to_contain_text("random walk")
        shown.run()
        shown.says("Finished in")
        assert shown.lines()


class TestEnds:
    @pytest.mark.parametrize(
        ("code", "timeout", "words"),
        [
            ("import time; time.sleep(60)", "1", "Stopped at the time limit"),
            ("b = bytearray(900 << 20)", "", "out of memory"),
            ("import sys; sys.exit(7)", "", "Failed with exit code 7"),
            ("import os; os.abort()", "", "Stopped by SIGABRT"),
        ],
    )
    def test_the_verdict_says_what_ended_it(
        self, page: Page, url: str, code: str, timeout: str, words: str
    ) -> None:
        shown = Shown(page, url, code)
        shown.limit("Time", timeout)
        shown.run()
        shown.says(words)

    def test_cancel_ends_it_and_what_was_printed_stays(self, page: Page, url: str) -> None:
        shown = Shown(page, url)
        shown.run(FOREVER)
        expect(shown.log).to_contain_text("begun")
        expect(shown.run_button).to_have_text("Cancel")
        page.keyboard.press("Control+.")
        shown.says("Cancelled after")
        assert shown.lines() == ["begun"]
        expect(shown.run_button).to_contain_text("Run")

    def test_a_traceback_leads_to_its_line(self, page: Page, url: str) -> None:
        shown = Shown(page, url)
        shown.run("x = 1\n\nraise ValueError(x)\n")
        shown.says("Failed with exit code 1")
        shown.button("Go to line 3 of main.py").click()
        expect(shown.editor).to_be_focused()


class TestQuota:
    def test_what_is_left_is_shown_and_a_refused_run_may_be_repeated(
        self, new_page: NewPage, faults: Faults
    ) -> None:
        server = Server(env={"SANDRUN_CPU_SECONDS_PER_MINUTE": 1})
        url = f"http://127.0.0.1:{server.port}"
        faults.origins.add(url)
        try:
            page = new_page()
            shown = Shown(page, url, "import time\nwhile time.process_time() < 9: pass\n")
            expect(page.get_by_text("CPU-seconds left")).to_contain_text("1.0 of 1")
            shown.run()
            shown.says("your CPU time of this minute is used up")
            shown.run("print('again')")
            shown.says("Not now")
            expect(shown.run_button).to_contain_text(re.compile(r"Run again in \d+ s"))
            expect(shown.run_button).to_be_disabled()
            expect(shown.editor).to_contain_text("again")
        finally:
            assert server.end() == 0


class TestLinks:
    def test_a_link_reads_and_cannot_delete(self, page: Page, url: str, new_page: NewPage) -> None:
        shown = Shown(page, url)
        shown.run(COUNT)
        page.wait_for_url(re.compile("/j/"))
        other = Shown(new_page(), page.url)  # comes late
        other.says("Finished in")
        assert lines_of(other, "line") == [f"line {n}" for n in range(60)]
        assert lines_of(shown, "line") == [f"line {n}" for n in range(60)]
        expect(other.button("Delete now")).to_have_count(0)
        page.reload()  # who sent it may delete it still
        shown.says("Finished in")
        expect(shown.button("Delete now")).to_be_visible()

    def test_a_link_to_no_job_says_so(self, page: Page, url: str) -> None:
        shown = Shown(page, f"{url}/j/job-00000000000000000000000000000000")
        shown.says("No such job")
        shown.says("Nothing is recorded")

    def test_code_in_a_link_is_told_to_no_server(
        self, page: Page, url: str, new_page: NewPage
    ) -> None:
        shown = Shown(page, url, "print('from a link')")
        shown.button("Share").click()
        link = page.get_by_label("Link with the code").input_value()
        assert "#code=" in link
        other = new_page()
        asked: list[str] = []
        other.on("request", lambda request: asked.append(request.url))
        there = Shown(other, link)
        expect(there.editor).to_contain_text("from a link")
        code = link.partition("#code=")[2][:20]
        assert not any(code in address.partition("#")[0] for address in asked)

    def test_when_its_time_is_over_the_page_says_that_it_is_gone(
        self, new_page: NewPage, faults: Faults
    ) -> None:
        server = Server("--no-quotas", env={"SANDRUN_TTL_SECONDS": 3})
        faults.origins.add(f"http://127.0.0.1:{server.port}")
        try:
            shown = Shown(new_page(), f"http://127.0.0.1:{server.port}", "print('soon gone')")
            shown.run()
            expect(shown.page.get_by_text("Deletes in")).to_be_visible()
            shown.says("gone, as promised", 15)
            expect(shown.editor).to_contain_text("soon gone")
        finally:
            assert server.end() == 0


class TestBroken:
    @pytest.mark.parametrize("cuts", [1, 4])
    def test_a_log_that_breaks_off_goes_on_without_gap_or_repetition(
        self, page: Page, server: Server, faults: Faults, cuts: int
    ) -> None:
        met: list[bytes] = []

        def cut(number: int, head: bytes) -> int | None:
            if b"GET /stream/" in head and len(met) < cuts:
                met.append(head)
                return 1500
            return None

        with Proxy(server.port, cut) as proxy:
            faults.origins.add(proxy.url)
            faults.allow("WebSocket connection to .* failed")
            shown = Shown(page, proxy.url, COUNT)
            shown.run()
            shown.says("Finished in")
            assert len(met) == cuts
            assert lines_of(shown, "line") == [f"line {n}" for n in range(60)]
            page.goto("about:blank")  # nobody holds a connection through the proxy

    def test_where_no_websocket_can_be_opened_events_do(
        self, page: Page, url: str, faults: Faults
    ) -> None:
        page.route_web_socket(re.compile("/stream/"), lambda socket: socket.close(code=1006 - 6))
        shown = Shown(page, url, COUNT)
        with page.expect_request(re.compile(r"/logs/.*format=sse")):
            shown.run()
        shown.says("Finished in")
        assert lines_of(shown, "line") == [f"line {n}" for n in range(60)]

    def test_a_server_that_was_restarted_knows_the_job_no_more_and_the_code_stays(
        self, new_page: NewPage, faults: Faults
    ) -> None:
        server = Server("--no-quotas")
        url = f"http://127.0.0.1:{server.port}"
        faults.origins.add(url)
        faults.allow("WebSocket connection to .* failed|ERR_CONNECTION")
        shown = Shown(new_page(), url, FOREVER)
        shown.run()
        expect(shown.log).to_contain_text("begun")
        os.kill(server.pids()["web"], signal.SIGKILL)  # asked to end, it would end the job first
        server.process.wait(20)
        shown.says("Connection lost, reconnecting")
        again = Server("--no-quotas", "--port", str(server.port))
        try:
            shown.says("The job is gone", 30)
            expect(shown.editor).to_contain_text("begun")
            shown.run("print('on the new one')")
            shown.says("Finished in")
        finally:
            assert again.end() == 0
            server.end()

    def test_a_server_that_is_away_loses_no_code(self, new_page: NewPage, faults: Faults) -> None:
        server = Server("--no-quotas")
        url = f"http://127.0.0.1:{server.port}"
        faults.origins.add(url)
        faults.allow("ERR_CONNECTION")
        shown = Shown(new_page(), url, "print('mine')")
        assert server.end() == 0
        shown.run()
        shown.says("Cannot reach the server")
        expect(shown.editor).to_contain_text("mine")


class TestLarge:
    def test_ten_megabytes_of_log_are_shown_and_the_page_stays_alive(
        self, page: Page, url: str
    ) -> None:
        shown = Shown(page, url)
        shown.run("for n in range(130_000): print(f'{n:6} ' + 'x' * 73)\n")
        shown.says("Finished in", 60)
        expect(shown.log).to_contain_text("129999 ", timeout=30_000)
        shown.page.get_by_label("Search").fill("129998")
        expect(page.get_by_text("1 of 1")).to_be_visible()

    def test_an_upload_over_the_limit_names_the_largest_files(
        self, new_page: NewPage, faults: Faults, tmp_path: Path
    ) -> None:
        server = Server("--no-quotas", env={"SANDRUN_UPLOAD_BYTES": 100_000})
        url = f"http://127.0.0.1:{server.port}"
        faults.origins.add(url)
        try:
            page = new_page()
            shown = Shown(page, url)
            (tmp_path / "big.bin").write_bytes(bytes(200_000))
            page.locator("input[type=file]").last.set_input_files(tmp_path / "big.bin")
            expect(shown.run_button).to_be_disabled()
            expect(page.get_by_role("alert")).to_contain_text("over the limit")
            shown.button("Remove", page.locator(".largest")).first.click()
            expect(shown.run_button).to_be_enabled()
        finally:
            assert server.end() == 0


class TestProof:
    def test_verify_says_that_all_is_as_signed(self, page: Page, url: str) -> None:
        shown = Shown(page, url)
        shown.run("open('out.txt', 'w').write('signed'); print('signed')")
        shown.says("Finished in")
        shown.tab("Details").click()
        shown.button("Verify").click()
        expect(page.get_by_text("All of it is as signed")).to_be_visible()

    @pytest.mark.parametrize("what", ["download", "logs", "status"])
    def test_verify_catches_what_was_tampered_with(self, page: Page, url: str, what: str) -> None:
        shown = Shown(page, url)
        shown.run("open('out.txt', 'w').write('signed'); print('signed')")
        shown.says("Finished in")

        def tamper(route: object) -> None:
            answer = route.fetch()  # type: ignore[attr-defined]
            body = answer.body().replace(b"signed", b"forged")
            if what == "status":
                status = json.loads(body)
                status["execution_metadata"]["cpu_seconds"] += 1
                body = json.dumps(status).encode()
            route.fulfill(response=answer, body=body)  # type: ignore[attr-defined]

        page.route(re.compile(f"/{what}/"), tamper)
        shown.tab("Details").click()
        shown.button("Verify").click()
        expect(page.get_by_text("Does not match")).to_be_visible()
        page.unroute_all()

    def test_the_same_job_can_be_copied_for_elsewhere(self, page: Page, url: str) -> None:
        shown = Shown(page, url, "print('hi')")
        shown.tab("Details").click()
        expect(page.locator(".copy").first).to_contain_text("curl")
        shown.tab("Command line").click()
        expect(page.locator("#copy-cli-panel")).to_contain_text("sandrun run")
        shown.tab("Python").click()
        expect(page.locator("#copy-python-panel")).to_contain_text("import sandrun")
