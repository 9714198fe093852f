"""Clients of the earlier system work unchanged: each one's requests, as its HTTP library writes
them, its polling, and every key that it reads.
"""

import http.client
import http.server
import io
import itertools
import json
import os
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.journeys.server import REPOSITORY, Server, targz

PAGE = "http://localhost:8000"  # where the old page is served: another origin than the API
MIB = 1024 * 1024

CODE = """\
import json, pathlib, sys, time
print("out", *sys.argv[1:], "\u2713", flush=True)
print("careful", file=sys.stderr, flush=True)
time.sleep(0.3)
pathlib.Path("results").mkdir()
pathlib.Path("results/deep.json").write_text(json.dumps(sys.argv[1:]))
pathlib.Path("output.txt").write_text("done")
"""
SLEEPER = "import time; print('up', flush=True); time.sleep(1000)"

NUMBER = (int, float)
ID = (str, type(None))

USAGE = {
    "metrics": {"cpu_seconds": NUMBER, "memory_mb": int, "wall_seconds": NUMBER},
    "cpu_seconds": NUMBER,
    "memory_bytes": int,
    "wall_time": NUMBER,
}
STATUS = {
    "job_id": str,
    "status": str,
    "queue_position": int,
    "execution_metadata": {
        "cpu_seconds": NUMBER,
        "memory_peak_bytes": int,
        "memory_peak_mb": int,
        "wall_time_ms": int,
        "exit_code": int,
        "environment": str,
        "interpreter": str,
    },
    "job_hash": str,
    "output_files": dict,
    "worker_metadata": {"worker_id": ID, "signature": ID},
    **USAGE,
}
OUTPUT_FILE = {"size_bytes": int, "sha256": str, "type": str}
LOGS = {"stdout": str, "stderr": str}
OUTPUTS = {"job_id": str, "status": str, "total_files": int, "files": list}
SERVER = dict.fromkeys(("service", "status", "description", "privacy", "limits"), str)
REFUSED = {"error": str, "cpu_available": NUMBER, "active_jobs": int}
STATS = {
    "your_quota": {
        "used": NUMBER,
        "limit": NUMBER,
        "available": NUMBER,
        "active_jobs": int,
        "can_submit": bool,
        "reason": str,
    },
    "system": {"queue_length": int, "active_jobs": int},
}
ENVIRONMENTS = {
    "templates": list,
    "stats": dict.fromkeys(
        ("total_templates", "cached_environments", "total_uses", "disk_usage_mb"), int
    ),
}


# ---- what they are made of


class Library(NamedTuple):
    """How one HTTP library writes a request."""

    headers: tuple[str, ...]  # that it always sends
    boundary: str
    length: str = "Content-Length"
    type: str = "Content-Type"
    keeps_alive: bool = True


REQUESTS = Library(
    (
        "Host: localhost:{port}",
        "User-Agent: python-requests/2.31.0",
        "Accept-Encoding: gzip, deflate",
        "Accept: */*",
        "Connection: keep-alive",
    ),
    boundary="2f9c1d4e8b7a40558a3e6d1c0b9f8e7d",
)
HTTPX = Library(  # as it leaves a proxy that writes all names in lower case
    (
        "host: 127.0.0.1:{port}",
        "accept: */*",
        "accept-encoding: gzip, deflate, br",
        "connection: keep-alive",
        "user-agent: python-httpx/0.27.0",
    ),
    boundary="8d0f6c2b4a19e375",
    length="content-length",
    type="content-type",
    keeps_alive=False,
)
AIOHTTP = Library(
    (
        "Host: 127.0.0.1:{port}",
        "Accept: */*",
        "Accept-Encoding: gzip, deflate",
        "User-Agent: Python/3.11 aiohttp/3.9.5",
    ),
    boundary="0b8f3f2e6d5c4b7a9e1d2c3b4a5f6e7d",
    keeps_alive=False,
)
_BROWSER = (
    "Host: localhost:{port}",
    "Connection: keep-alive",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36",
    "Sec-Fetch-Site: same-site",
    "Sec-Fetch-Mode: cors",
    "Sec-Fetch-Dest: empty",
    f"Origin: {PAGE}",
    f"Referer: {PAGE}/",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-US,en;q=0.9",
)
FETCH = Library((*_BROWSER, "Accept: */*"), boundary="----WebKitFormBoundaryQ7hT2vXkP9aLmZ3c")
AXIOS = FETCH._replace(headers=(*_BROWSER, "Accept: application/json, text/plain, */*"))


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Speaks to the server as a library does, from an address of its own."""

    def __init__(self, server: Server, address: str, library: Library) -> None:
        self._port = server.port
        self._address = address
        self._library = library
        self._socket: socket.socket | None = None

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def wait(self, job: str) -> dict[str, Any]:
        """Its last status."""

        def ask() -> dict[str, Any]:
            answer = self.get(f"/status/{job}")
            assert answer.status == 200, answer
            status: dict[str, Any] = answer.json()
            return status

        return poll(ask)

    def submit(self, *parts: tuple[str, bytes]) -> Answer:
        """POST /submit with the parts, each with its head as the library writes it."""
        boundary = self._library.boundary
        body = b"".join(
            f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"
            for head, content in parts
        )
        kind = f"{self._library.type}: multipart/form-data; boundary={boundary}"
        return self.send("POST", "/submit", body + f"--{boundary}--\r\n".encode(), kind)

    def send(self, method: str, path: str, body: bytes = b"", *headers: str) -> Answer:
        lines = [f"{method} {path} HTTP/1.1", *self._library.headers, *headers]
        if method == "POST":
            lines.append(f"{self._library.length}: {len(body)}")
        head = "\r\n".join([*lines, "", ""]).replace("{port}", str(self._port))
        connection = self._socket or self._connect()
        self._socket = None
        connection.sendall(head.encode() + body)
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        answer = Answer(
            response.status,
            response.read(),
            {name.lower(): value for name, value in response.getheaders()},
        )
        if self._library.keeps_alive and not response.will_close:
            self._socket = connection
        else:
            connection.close()
        return answer

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), 60, (self._address, 0))

    def close(self) -> None:
        if self._socket:
            self._socket.close()


def poll(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Ask for the status until it is one of the two words that every client waits for."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = ask()
        check(status, STATUS)
        if status["status"] in ("completed", "failed"):
            return status
        assert status["status"] in ("queued", "running")
        time.sleep(0.05)
    raise AssertionError(f"it is not over: {status}")


def check(value: Any, shape: Any, where: str = "") -> None:
    """Every key of `shape` is there, and is of that type; there may be more keys."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), (where, value)
        for key, below in shape.items():
            assert key in value, f"{where}.{key} is missing in {value}"
            check(value[key], below, f"{where}.{key}")
    else:
        assert isinstance(value, shape), (where, value)
        assert shape is bool or not isinstance(value, bool), (where, value)


def listed(code: str, name: str, size: int) -> bytes:
    """The text form of one file that the page and the MCP server send as an archive."""
    return f"----Tar\nPath: {name}\nSize: {size}\n\n{code}".encode()


_numbers = itertools.count(1)


@pytest.fixture
def address() -> str:
    """One that the server has not heard of: quotas go by address."""
    return f"127.0.7.{next(_numbers)}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """With the quotas that it has by default, and the page at home."""
    server = Server("--allow-origin", PAGE)
    try:
        yield server
    finally:
        assert server.end() == 0, server.banner


@contextmanager
def talking(server: Server, address: str, library: Library) -> Iterator[Client]:
    client = Client(server, address, library)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def cancelled_at_the_end(server: Server) -> Iterator[list[dict[str, Any]]]:
    """A list for answers to submissions whose jobs must not go on."""
    answers: list[dict[str, Any]] = []
    try:
        yield answers
    finally:
        for answer in answers:
            path = f"/jobs/{answer['job_id']}/cancel"
            server.request("POST", path, Authorization=f"Bearer {answer['owner_token']}")


# ---- the Python client


class PythonClient:
    """requests.Session, one connection; the manifest part comes first."""

    def __init__(self, client: Client) -> None:
        self.http = client

    def submit(self, archive: bytes, manifest: dict[str, Any]) -> Answer:
        return self.http.submit(
            ('Content-Disposition: form-data; name="manifest"', json.dumps(manifest).encode()),
            (
                'Content-Disposition: form-data; name="files"; filename="job.tar.gz"\r\n'
                "Content-Type: application/gzip",
                archive,
            ),
        )

    def submit_code(self, code: str, interpreter: str = "python3") -> str:
        extensions = {"python3": "py", "python": "py", "node": "js", "bash": "sh", "sh": "sh"}
        name = f"main.{extensions.get(interpreter, 'txt')}"
        answer = self.submit(
            targz({name: code.encode()}), {"entrypoint": name, "interpreter": interpreter}
        )
        assert answer.status == 200, answer
        check(answer.json(), {"job_id": str, "status": str})
        return str(answer.json()["job_id"])

    def wait(self, job: str) -> dict[str, Any]:
        return self.http.wait(job)

    def logs(self, job: str) -> dict[str, str]:
        logs: dict[str, str] = self.http.get(f"/logs/{job}").json()
        check(logs, LOGS)
        return logs

    def list_outputs(self, job: str) -> list[str]:
        body = self.http.get(f"/outputs/{job}").json()
        check(body, OUTPUTS)
        return list(body["files"])

    def download(self, job: str, name: str) -> bytes:
        answer = self.http.get(f"/download/{job}/{name}")
        assert answer.status == 200, answer
        return answer.body


class TestPythonClient:
    @pytest.fixture
    def client(self, server: Server, address: str) -> Iterator[PythonClient]:
        with talking(server, address, REQUESTS) as client:
            yield PythonClient(client)

    def test_the_connection_is_told_by_the_word_service(self, client: PythonClient) -> None:
        answer = client.http.get("/")
        check(answer.json(), SERVER)
        assert (answer.status, answer.json()["service"]) == (200, "sandrun")

    def test_code_is_polled_to_its_end_and_every_listed_file_is_downloaded_by_its_string(
        self, client: PythonClient
    ) -> None:
        job = client.submit_code(CODE)
        status = client.wait(job)
        assert (status["status"], status["job_id"]) == ("completed", job)
        logs = client.logs(job)
        assert (logs["stdout"], logs["stderr"]) == ("out \u2713\n", "careful\n")
        files = client.list_outputs(job)
        assert sorted(files) == ["output.txt", "results/deep.json"]
        content = {name: client.download(job, name) for name in files}
        assert content == {"output.txt": b"done", "results/deep.json": b"[]"}

    def test_a_directory_is_packed_below_a_dot_with_arguments_and_patterns(
        self, client: PythonClient, tmp_path: Path
    ) -> None:
        (tmp_path / "helper").mkdir()
        (tmp_path / "helper" / "words.py").write_text("def shout(word): return word.upper()")
        (tmp_path / "main.py").write_text("from helper.words import shout\n" + CODE)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            tar.add(tmp_path, arcname=".")
        answer = client.submit(
            buffer.getvalue(),
            {
                "entrypoint": "main.py",
                "interpreter": "python3",
                "timeout": 300,
                "memory_mb": 512,
                "args": ["test-input"],
                "outputs": ["*.json"],
            },
        )
        assert answer.status == 200, answer
        job = answer.json()["job_id"]
        assert client.wait(job)["status"] == "completed"
        assert client.list_outputs(job) == ["results/deep.json"]
        assert client.download(job, "results/deep.json") == b'["test-input"]'

    @pytest.mark.parametrize(
        ("interpreter", "code"),
        [
            ("python3", "print('hi')"),
            ("python", "print('hi')"),
            ("node", "console.log('hi')"),
            ("bash", "echo hi"),
            ("sh", "echo hi"),
            ("perl", 'print "hi\\n"'),  # which it calls main.txt
        ],
    )
    def test_every_interpreter_that_it_names_runs(
        self, client: PythonClient, interpreter: str, code: str
    ) -> None:
        job = client.submit_code(code, interpreter)
        assert client.wait(job)["status"] == "completed"
        assert client.logs(job)["stdout"] == "hi\n"

    def test_the_final_status_has_what_the_job_used_and_left(self, client: PythonClient) -> None:
        status = client.wait(client.submit_code(CODE))
        execution, metrics = status["execution_metadata"], status["metrics"]
        assert (execution["exit_code"], execution["interpreter"]) == (0, "python3")
        assert 300 <= execution["wall_time_ms"] < 30_000
        assert execution["memory_peak_bytes"] == status["memory_bytes"] > 0
        assert execution["memory_peak_mb"] == metrics["memory_mb"] == status["memory_bytes"] // MIB
        assert execution["cpu_seconds"] == metrics["cpu_seconds"] == status["cpu_seconds"] > 0
        assert sorted(status["output_files"]) == ["output.txt", "results/deep.json"]
        for file in status["output_files"].values():
            check(file, OUTPUT_FILE)
        assert status["output_files"]["results/deep.json"]["type"] == "data"
        assert len(status["job_hash"]) == 64

    def test_a_failure_is_failed_with_its_exit_code_and_a_kill_is_minus_one(
        self, client: PythonClient
    ) -> None:
        status = client.wait(client.submit_code("import sys; print('x'); sys.exit(3)"))
        assert (status["status"], status["execution_metadata"]["exit_code"]) == ("failed", 3)
        status = client.wait(client.submit_code("import os; os.kill(os.getpid(), 9)"))
        assert (status["status"], status["execution_metadata"]["exit_code"]) == ("failed", -1)

    def test_a_name_with_a_space_and_an_accent_is_downloaded_as_requests_quotes_it(
        self, client: PythonClient
    ) -> None:
        job = client.submit_code("open('a caf\u00e9.txt', 'w').write('x')")
        client.wait(job)
        assert client.list_outputs(job) == ["a caf\u00e9.txt"]
        assert client.download(job, "a%20caf%C3%A9.txt") == b"x"

    def test_its_batch_of_three_gets_two_jobs_and_a_429(
        self, client: PythonClient, server: Server
    ) -> None:
        with cancelled_at_the_end(server) as started:
            manifest = {"entrypoint": "main.py", "interpreter": "python3"}
            for _ in range(2):
                answer = client.submit(targz({"main.py": SLEEPER.encode()}), manifest)
                assert answer.status == 200, answer
                started.append(answer.json())
            answer = client.submit(targz({"main.py": SLEEPER.encode()}), manifest)
            assert answer.status == 429
            check(answer.json(), REFUSED)
            assert answer.json()["error"] == "Max concurrent jobs reached (2)"
            assert answer.json()["active_jobs"] == 2

    @pytest.mark.parametrize("path", ["/status/{}", "/logs/{}", "/outputs/{}", "/download/{}/f"])
    def test_a_job_that_is_gone_is_404_in_the_same_words(
        self, client: PythonClient, path: str
    ) -> None:
        answer = client.http.get(path.format("job_1764000000_1"))
        assert (answer.status, answer.json()["error"]) == (404, "Job not found")

    def test_a_file_that_is_not_there_is_404(self, client: PythonClient) -> None:
        job = client.submit_code("print(1)")
        client.wait(job)
        answer = client.http.get(f"/download/{job}/nothing.txt")
        assert (answer.status, answer.json()["error"]) == (404, "File not found")


# ---- the pages


class Page:
    """A browser on another origin; the manifest part comes last."""

    def __init__(self, client: Client) -> None:
        self.http = client

    def get(self, path: str) -> Any:
        return self.read(self.http.get(path)).json()

    def submit(self, manifest: dict[str, Any], *files: tuple[str, str, bytes]) -> str:
        """Form files of (name, type, content)."""
        parts = [
            (
                f'Content-Disposition: form-data; name="files"; filename="{name}"\r\n'
                f"Content-Type: {kind}",
                content,
            )
            for name, kind, content in files
        ]
        text = json.dumps(manifest, ensure_ascii=False, separators=(",", ":")).encode()
        parts.append(('Content-Disposition: form-data; name="manifest"', text))
        return str(self.read(self.http.submit(*parts)).json()["job_id"])

    @staticmethod
    def read(answer: Answer) -> Answer:
        """A browser gives the answer to the page only if it is told that the page may have it."""
        assert answer.status == 200, answer
        assert answer.headers.get("access-control-allow-origin") in (PAGE, "*"), answer
        return answer


class TestPage:
    """integrations/web-frontend: fetch, and one file as text."""

    @pytest.fixture
    def page(self, server: Server, address: str) -> Iterator[Page]:
        with talking(server, address, FETCH) as client:
            yield Page(client)

    def run_code(self, page: Page, code: str, interpreter: str) -> str:
        # It is main.py whatever the language is.
        file = ("job.tar.gz", "application/x-tar", listed(code, "main.py", len(code.encode())))
        return page.submit({"entrypoint": "main.py", "interpreter": interpreter}, file)

    def test_the_light_is_green_for_the_word_service(self, page: Page) -> None:
        assert page.get("/")["service"] == "sandrun"

    def test_status_and_logs_are_read_at_every_poll_while_the_job_runs(self, page: Page) -> None:
        job = self.run_code(page, CODE.replace("0.3", "1"), "python3")
        printed: list[str] = []

        def ask() -> dict[str, Any]:
            status: dict[str, Any] = page.get(f"/status/{job}")
            logs = page.get(f"/logs/{job}")
            check(logs, LOGS)
            if status["status"] == "running":
                printed.append(logs["stdout"])
            return status

        assert poll(ask)["status"] == "completed"
        assert "out \u2713\n" in printed, "the log is to be read while the job runs"

    def test_its_three_figures_are_seconds_bytes_and_milliseconds(self, page: Page) -> None:
        status = page.http.wait(self.run_code(page, CODE, "python3"))
        assert 0 < status["cpu_seconds"] < 10  # it writes 's' behind it
        assert MIB / 2 < status["memory_bytes"] < 512 * MIB
        assert 300 <= status["wall_time"] < 30_000  # it writes 'ms' behind it

    def test_the_listed_strings_are_shown_and_fetched(self, page: Page) -> None:
        job = self.run_code(page, CODE, "python3")
        page.http.wait(job)
        files = page.get(f"/outputs/{job}")["files"]
        assert sorted(files) == ["output.txt", "results/deep.json"]
        for name in files:
            assert page.read(page.http.get(f"/download/{job}/{name}")).body

    @pytest.mark.parametrize(
        ("interpreter", "code"),
        [("python3", "print('hi')"), ("node", "console.log('hi')"), ("bash", "echo hi")],
    )
    def test_every_language_runs_from_a_file_that_is_called_main_py(
        self, page: Page, interpreter: str, code: str
    ) -> None:
        job = self.run_code(page, code, interpreter)
        status = page.http.wait(job)
        assert status["status"] == "completed", status
        assert page.get(f"/logs/{job}")["stdout"] == "hi\n"


class TestVuePage:
    """frontend/index.html: axios, and a folder as loose files."""

    MANIFEST = {
        "entrypoint": "project/main.py",
        "interpreter": "python3",
        "args": ["--input", "data.csv"],
        "outputs": ["results/", "*.png", "*.json"],
    }
    FOLDER = (
        ("project/main.py", "text/x-python", b"import sub.words\n" + CODE.encode()),
        ("project/sub/words.py", "text/x-python", b"print('sub')"),
        ("project/data.csv", "text/csv", b"a,b\n"),
    )

    @pytest.fixture
    def page(self, server: Server, address: str) -> Iterator[Page]:
        with talking(server, address, AXIOS) as client:
            yield Page(client)

    def test_a_folder_arrives_by_the_paths_that_the_browser_names(self, page: Page) -> None:
        job = page.submit(self.MANIFEST, *self.FOLDER)
        status = poll(lambda: page.get(f"/status/{job}"))
        assert status["status"] == "completed", page.get(f"/logs/{job}")
        assert status["queue_position"] == 0
        check(status["metrics"], USAGE["metrics"])
        files = page.get(f"/outputs/{job}")["files"]
        assert files == ["results/deep.json"]
        assert page.http.get(f"/download/{job}/{files[0]}").body == b'["--input", "data.csv"]'

    def test_the_logs_are_json_although_axios_would_take_text_as_well(self, page: Page) -> None:
        job = page.submit(self.MANIFEST, *self.FOLDER)
        page.http.wait(job)
        logs = page.get(f"/logs/{job}")
        assert (logs["stdout"], logs["stderr"]) == (
            "sub\nout --input data.csv \u2713\n",
            "careful\n",
        )

    def test_a_new_window_gets_one_file_or_all_of_them(
        self, page: Page, server: Server, address: str
    ) -> None:
        job = page.submit(self.MANIFEST, *self.FOLDER)
        page.http.wait(job)
        headers = (
            "Host: localhost:{port}",
            "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "Sec-Fetch-Site: same-site",
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-Dest: document",
            f"Referer: {PAGE}/",
        )
        with talking(server, address, FETCH._replace(headers=headers)) as window:
            one = window.get(f"/download/{job}/results/deep.json")
            every = window.get(f"/download/{job}")
        for answer in (one, every):
            assert answer.status == 200
            assert answer.headers["content-disposition"].startswith("attachment;")
        assert every.headers["content-type"] == "application/gzip"
        with tarfile.open(fileobj=io.BytesIO(every.body)) as tar:
            assert tar.getnames() == ["results/deep.json"]
        assert page.get(f"/status/{job}")["status"] == "completed", "a download deletes nothing"


# ---- the curl script


class Curl:
    """The command itself, with the options of the old examples."""

    def __init__(self, server: Server, address: str, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{server.port}"
        self._address = address
        self._folder = folder

    def __call__(self, *words: str) -> Any:
        done = subprocess.run(
            ["curl", "-s", "--interface", self._address, *words],
            capture_output=True, check=True, cwd=self._folder, timeout=60,
        )  # fmt: skip
        return json.loads(done.stdout)

    def submit(self, name: str, manifest: str) -> str:
        words = ("-F", f"files=@{name}", "-F", f"manifest={manifest}")
        return str(self("-X", "POST", f"{self.url}/submit", *words)["job_id"])

    def wait(self, job: str) -> dict[str, Any]:
        return poll(lambda: self(f"{self.url}/status/{job}"))


class TestCurlScript:
    @pytest.fixture
    def curl(self, server: Server, address: str, tmp_path: Path) -> Curl:
        return Curl(server, address, tmp_path)

    def pack(self, folder: Path, name: str, content: str) -> None:
        (folder / name).write_text(content)
        subprocess.run(["tar", "-czf", "job.tar.gz", name], cwd=folder, check=True)

    def test_the_bare_address_of_the_server_answers_json(self, curl: Curl) -> None:
        check(curl(curl.url), SERVER)

    def test_a_script_goes_from_submission_to_its_outputs(self, curl: Curl, tmp_path: Path) -> None:
        self.pack(tmp_path, "hello.py", CODE)
        job = curl.submit("job.tar.gz", '{"entrypoint":"hello.py","interpreter":"python3"}')
        assert curl.wait(job)["status"] == "completed"
        assert curl(f"{curl.url}/logs/{job}")["stdout"] == "out \u2713\n"
        outputs = curl(f"{curl.url}/outputs/{job}")
        check(outputs, OUTPUTS)
        assert outputs["total_files"] == len(outputs["files"]) == 2

    def test_arguments_are_given_in_a_manifest_of_many_lines(
        self, curl: Curl, tmp_path: Path
    ) -> None:
        self.pack(tmp_path, "args_example.py", "import sys; print(sys.argv[1:])")
        manifest = """{
            "entrypoint":"args_example.py",
            "interpreter":"python3",
            "args":["--input","data.csv","--output","results.json"]
        }"""
        job = curl.submit("job.tar.gz", manifest)
        assert curl.wait(job)["status"] == "completed"
        said = curl(f"{curl.url}/logs/{job}")["stdout"]
        assert said == "['--input', 'data.csv', '--output', 'results.json']\n"

    @pytest.mark.parametrize("in_form", [True, False], ids=["beside a form part", "alone"])
    def test_a_job_json_in_the_archive_is_a_manifest(
        self, curl: Curl, tmp_path: Path, in_form: bool
    ) -> None:
        job_json = json.dumps(
            {"entrypoint": "processor.py", "interpreter": "python3",
             "outputs": ["*.csv", "*.json"], "timeout": 60, "memory_mb": 256}
        )  # fmt: skip
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "job.json").write_text(job_json)
        (tmp_path / "data" / "processor.py").write_text(
            "open('output.csv', 'w').write('a'); open('notes.txt', 'w').write('b')"
        )
        subprocess.run(["tar", "-czf", "job.tar.gz", "-C", "data", "."], cwd=tmp_path, check=True)
        form = '{"entrypoint":"processor.py","interpreter":"python3","outputs":["*.csv","*.json"]}'
        words = ["-F", f"manifest={form}"] if in_form else []
        job = curl("-X", "POST", f"{curl.url}/submit", "-F", "files=@job.tar.gz", *words)["job_id"]
        assert curl.wait(job)["status"] == "completed"
        assert "output.csv" in (files := curl(f"{curl.url}/outputs/{job}")["files"])
        assert "notes.txt" not in files

    def test_bash_runs_and_a_failed_job_keeps_its_logs(self, curl: Curl, tmp_path: Path) -> None:
        self.pack(tmp_path, "info.sh", "#!/bin/bash\necho said; echo wrong >&2; exit 1")
        job = curl.submit("job.tar.gz", '{"entrypoint":"info.sh","interpreter":"bash"}')
        assert curl.wait(job)["status"] == "failed"
        logs = curl(f"{curl.url}/logs/{job}")
        assert (logs["stdout"], logs["stderr"]) == ("said\n", "wrong\n")


# ---- the pool coordinator


class Coordinator:
    """The part of the pool's coordinator that speaks to a worker, each time on a new connection."""

    def __init__(self, client: Client, worker_id: str | None) -> None:
        self.http = client
        self.worker_id = worker_id

    def is_healthy(self) -> bool:
        answer = self.http.get("/health")
        return answer.status == 200 and answer.json().get("worker_id") == self.worker_id

    def dispatch(self, data: bytes, manifest: dict[str, Any], sized: bool = False) -> str:
        """The worker's job id, or nothing: then the job goes back to the end of the pool's line."""
        text = json.dumps(manifest).encode()
        answer = self.http.submit(
            (
                "Content-Type: application/gzip\r\n"
                'Content-Disposition: form-data; name="files"; filename="project.tar.gz"'
                + (f"\r\nContent-Length: {len(data)}" if sized else ""),
                data,
            ),
            (
                "Content-Type: application/json\r\n"
                'Content-Disposition: form-data; name="manifest"'
                + (f"\r\nContent-Length: {len(text)}" if sized else ""),
                text,
            ),
        )
        return str(answer.json()["job_id"]) if answer.status == 200 else ""


class TestPoolCoordinator:
    @pytest.fixture
    def pool(self, server: Server, address: str) -> Iterator[Coordinator]:
        with talking(server, address, AIOHTTP) as client:
            worker_id = server.get("/health")["worker_id"]  # where its own test script takes it
            yield Coordinator(client, worker_id)

    def test_a_worker_is_healthy_by_its_code_and_by_the_id_that_is_configured(
        self, pool: Coordinator
    ) -> None:
        assert pool.is_healthy() and pool.is_healthy()
        body = pool.http.get("/health").json()
        check(body, {"status": str, "worker_id": ID})
        assert body["status"] == "healthy"
        pool.worker_id = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
        assert not pool.is_healthy()

    def test_the_status_names_the_worker_that_health_names(self, pool: Coordinator) -> None:
        job = pool.dispatch(targz({"main.py": b"print(1)"}), {"entrypoint": "main.py"})
        status = pool.http.wait(job)
        assert status["worker_metadata"]["worker_id"] == pool.worker_id

    @pytest.mark.parametrize("sized", [False, True], ids=["", "with the length of each part"])
    @pytest.mark.parametrize(
        "data",
        [targz({"./main.py": CODE.encode()}), listed(CODE, "main.py", 1)],
        ids=["an archive", "the text form"],
    )
    def test_the_last_file_of_a_form_is_sent_on_as_project_tar_gz(
        self, pool: Coordinator, data: bytes, sized: bool
    ) -> None:
        manifest = {
            "entrypoint": "main.py",
            "interpreter": "python3",
            "args": ["test", "pool"],
            "outputs": ["*.txt"],
            "timeout": 60,
        }
        job = pool.dispatch(data, manifest, sized)
        assert job
        status = pool.http.wait(job)
        assert status["status"] == "completed", status
        assert list(status["output_files"]) == ["output.txt"]

    def test_five_jobs_at_once_all_run_since_a_429_puts_a_job_back_in_its_line(
        self, pool: Coordinator
    ) -> None:
        data = targz({"main.py": b"import time; time.sleep(0.5)"})
        line, running, put_back, ended = list(range(5)), set[str](), 0, 0
        deadline = time.monotonic() + 60
        while ended < 5 and time.monotonic() < deadline:
            if line:
                job = pool.dispatch(data, {"entrypoint": "main.py"})
                if job:
                    line.pop()
                    running.add(job)
                else:
                    put_back += 1
            for job in list(running):
                if pool.http.get(f"/status/{job}").json()["status"] in ("completed", "failed"):
                    running.remove(job)
                    ended += 1
            time.sleep(0.05)
        assert ended == 5
        assert put_back > 0, "two at once are allowed to the coordinator's address"

    def test_it_asks_outputs_for_a_file_and_hears_404_as_ever(self, pool: Coordinator) -> None:
        job = pool.dispatch(targz({"main.py": CODE.encode()}), {"entrypoint": "main.py"})
        pool.http.wait(job)
        assert pool.http.get(f"/outputs/{job}/output.txt").status == 404


# ---- the MCP server


class Mcp:
    """httpx, a connection for each request, header names in lower case; one file as text, with a
    size that counts characters.
    """

    EXTENSIONS = {"python3": "py", "node": "js", "bash": "sh"}

    def __init__(self, client: Client) -> None:
        self.http = client

    def submit(self, code: str, interpreter: str) -> str:
        name = f"main.{self.EXTENSIONS[interpreter]}"
        manifest = json.dumps({"entrypoint": name, "interpreter": interpreter})
        answer = self.http.submit(
            ('Content-Disposition: form-data; name="manifest"', manifest.encode()),
            (
                'Content-Disposition: form-data; name="files"; filename="job.tar.gz"\r\n'
                "Content-Type: application/x-tar",
                listed(code, name, len(code)),
            ),
        )
        assert answer.status == 200, answer
        return str(answer.json()["job_id"])

    def ask(self, path: str) -> Any:
        """It takes any body with the key 'error', whatever stands there, for an error."""
        body = self.http.get(path).json()
        assert "error" not in body, body
        return body


class TestMcpServer:
    @pytest.fixture
    def mcp(self, server: Server, address: str) -> Iterator[Mcp]:
        with talking(server, address, HTTPX) as client:
            yield Mcp(client)

    @pytest.mark.parametrize(
        ("interpreter", "code"),
        [
            ("python3", "print('caf\u00e9 \u2713 \U0001f600')"),
            ("node", "console.log('caf\u00e9 \u2713 \U0001f600')"),
            ("bash", "echo 'caf\u00e9 \u2713 \U0001f600'"),
        ],
    )
    def test_a_tool_runs_code_although_its_size_counts_characters(
        self, mcp: Mcp, interpreter: str, code: str
    ) -> None:
        job = mcp.submit(code, interpreter)
        status = mcp.http.wait(job)
        assert status["status"] == "completed", status
        logs = mcp.ask(f"/logs/{job}")
        assert logs.get("stdout", "") == "caf\u00e9 \u2713 \U0001f600\n"
        assert logs.get("stderr", "") == ""

    def test_a_status_has_no_key_error_at_any_time_unless_something_is_wrong(
        self, mcp: Mcp
    ) -> None:
        job = mcp.submit("import time; time.sleep(0.2)", "python3")
        mcp.ask(f"/status/{job}")
        mcp.http.wait(job)
        mcp.ask(f"/status/{job}")

    def test_a_failed_program_is_no_error_of_the_tool(self, mcp: Mcp) -> None:
        job = mcp.submit("raise SystemExit('wrong')", "python3")
        mcp.http.wait(job)
        assert mcp.ask(f"/status/{job}")["status"] == "failed"
        assert mcp.ask(f"/logs/{job}")["stderr"] == "wrong\n"

    def test_the_figures_can_be_written_as_the_tool_writes_them(self, mcp: Mcp) -> None:
        job = mcp.submit("sum(range(10**6))", "python3")
        status = mcp.http.wait(job)
        metrics = status["metrics"]
        text = f"CPU={metrics['cpu_seconds']:.3f}s, Memory={metrics['memory_mb']}MB"
        assert text != "CPU=0.000s, Memory=0MB"

    def test_a_job_that_it_does_not_wait_for_is_asked_for_later(
        self, mcp: Mcp, server: Server
    ) -> None:
        job = mcp.submit("print(1)", "python3")
        assert isinstance(mcp.http.get(f"/status/{job}").json()["queue_position"], int)
        server.finish(job)
        assert mcp.ask(f"/logs/{job}")["stdout"] == "1\n"

    @pytest.mark.parametrize("path", ["/status/job_1_1", "/logs/job_1_1"])
    def test_an_unknown_job_is_an_error_in_a_body(self, mcp: Mcp, path: str) -> None:
        assert mcp.http.get(path).json()["error"] == "Job not found"


# ---- what any of them may be told


class TestAnswers:
    @pytest.fixture
    def client(self, server: Server, address: str) -> Iterator[Client]:
        with talking(server, address, REQUESTS) as client:
            yield client

    FILE = 'Content-Disposition: form-data; name="files"; filename="{}"'
    MANIFEST = 'Content-Disposition: form-data; name="manifest"'

    def test_a_form_without_files_is_refused_in_the_old_words(self, client: Client) -> None:
        answer = client.submit((self.MANIFEST, b'{"entrypoint":"main.py"}'))
        assert (answer.status, answer.json()["error"]) == (400, "No files uploaded")

    def test_an_upload_without_an_entrypoint_is_refused_in_the_old_words(
        self, client: Client
    ) -> None:
        answer = client.submit((self.FILE.format("a.tar.gz"), targz({"a.csv": b"", "b.csv": b""})))
        assert (answer.status, answer.json()["error"]) == (400, "No entrypoint specified")

    @pytest.mark.parametrize(
        ("name", "code"),
        [("main.py", b"print('hi')"), ("index.js", b"console.log('hi')"), ("run.sh", b"echo hi")],
    )
    @pytest.mark.parametrize(
        "manifest",
        [None, b"{}", b'{"entrypoint":""}', b'{"args":[],"outputs":[],"environment":""}'],
        ids=["none", "empty", "an empty entrypoint", "empty lists"],
    )
    def test_without_an_entrypoint_the_usual_name_is_run(
        self, client: Client, name: str, code: bytes, manifest: bytes | None
    ) -> None:
        parts = [(self.FILE.format("a.tar.gz"), targz({name: code, "a.csv": b""}))]
        if manifest is not None:
            parts.append((self.MANIFEST, manifest))
        answer = client.submit(*parts)
        assert answer.status == 200, answer
        job = answer.json()["job_id"]
        client.wait(job)
        assert client.get(f"/logs/{job}").json()["stdout"] == "hi\n"

    @pytest.mark.parametrize("manifest", [b"{}", b'{"timeout":60}'])  # the first by sandrunadmin
    def test_a_manifest_without_an_entrypoint_leaves_that_to_job_json(
        self, client: Client, manifest: bytes
    ) -> None:
        files = {"go.py": b"print('hi')", "job.json": b'{"entrypoint":"go.py"}'}
        answer = client.submit(
            (self.FILE.format("a.tar.gz"), targz(files)), (self.MANIFEST, manifest)
        )
        assert answer.status == 200, answer
        job = answer.json()["job_id"]
        assert client.wait(job)["status"] == "completed"

    def test_a_request_that_is_too_large_is_refused_in_the_old_words(
        self, client: Client, server: Server, address: str
    ) -> None:
        size = 100 * MIB + 1
        head = (
            f"POST /submit HTTP/1.1\r\nHost: localhost:{server.port}\r\n"
            f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {size}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.port), 30, (address, 0)) as connection:
            connection.sendall(head.encode() + bytes(64 * 1024))
            response = http.client.HTTPResponse(connection)
            response.begin()
            body = json.loads(response.read())
        assert (response.status, body["error"]) == (413, "Request exceeds 100MB limit")

    def test_submitting_is_answered_with_200_and_the_word_queued(self, client: Client) -> None:
        answer = client.submit((self.FILE.format("main.py"), b"print(1)"))
        check(answer.json(), {"job_id": str, "status": str})
        assert (answer.status, answer.json()["status"]) == (200, "queued")
        assert answer.headers["content-type"].startswith("application/json")

    def test_stats_follow_the_client_through_its_quota(
        self, client: Client, server: Server
    ) -> None:
        body = client.get("/stats").json()
        check(body, STATS)
        quota = body["your_quota"]
        assert (quota["used"], quota["limit"], quota["available"]) == (0, 10, 10)
        assert (quota["active_jobs"], quota["can_submit"], quota["reason"]) == (0, True, "")
        with cancelled_at_the_end(server) as started:
            for _ in range(2):
                answer = client.submit((self.FILE.format("main.py"), SLEEPER.encode()))
                started.append(answer.json())
            body = client.get("/stats").json()
            check(body, STATS)
            assert body["your_quota"]["active_jobs"] == 2
            assert body["your_quota"]["can_submit"] is False
            assert body["your_quota"]["reason"] == "Max concurrent jobs reached (2)"
            assert body["system"]["active_jobs"] >= 2

    def test_the_twenty_first_job_of_an_hour_is_refused_in_the_old_words(
        self, client: Client
    ) -> None:
        for _ in range(20):
            answer = client.submit((self.FILE.format("run.sh"), b"true"))
            assert answer.status == 200, answer
            job = answer.json()["job_id"]
            assert client.get(f"/status/{job}?wait=30").json()["status"] == "completed"
        answer = client.submit((self.FILE.format("run.sh"), b"true"))
        check(answer.json(), REFUSED)
        assert (answer.status, answer.json()["error"]) == (429, "Max jobs per hour reached (20)")

    def test_environments_are_names_and_counts(self, client: Client) -> None:
        body = client.get("/environments").json()
        check(body, ENVIRONMENTS)
        assert body["templates"] and all(isinstance(name, str) for name in body["templates"])
        assert body["stats"]["total_templates"] == len(body["templates"])


# ---- our own examples


class TestCurlExamples:
    SCRIPT = REPOSITORY / "integrations" / "examples" / "curl_examples.sh"

    def run(self, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.SCRIPT)],
            capture_output=True, text=True, timeout=120, cwd="/",
            env={**os.environ, "SANDRUN_SERVER": url, "TMPDIR": str(folder)},
        )  # fmt: skip

    def test_every_step_succeeds_under_the_default_quotas(
        self, server: Server, tmp_path: Path
    ) -> None:
        done = self.run(f"http://127.0.0.1:{server.port}", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        for path in ("submit", "status", "logs", "outputs", "download", "run", "jobs", "stats",
                     "environments"):  # fmt: skip
            assert f"127.0.0.1:{server.port}/{path}" in done.stdout, path
        assert not list(tmp_path.iterdir())

    def test_another_server_fails_at_the_first_answer(self, tmp_path: Path) -> None:
        class Other(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"service":"other"}')

            def log_message(self, *args: object) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
            thread = threading.Thread(target=other.serve_forever)
            thread.start()
            try:
                done = self.run(f"http://127.0.0.1:{other.server_port}", tmp_path)
            finally:
                other.shutdown()
                thread.join()
        assert done.returncode != 0
        assert "the answer has no" in done.stderr
        assert not list(tmp_path.iterdir())

    def test_without_a_server_it_fails_and_leaves_nothing(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and does not listen
            done = self.run(f"http://127.0.0.1:{taken.getsockname()[1]}", tmp_path)
        assert done.returncode != 0
        assert not list(tmp_path.iterdir())
