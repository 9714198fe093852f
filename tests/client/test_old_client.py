"""The earlier Python client: the mission's lines as they stand, and what each method answers. Its
requests themselves are in tests/journeys/test_old_clients.py.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sandrun
from integrations.python_client.sandrun_client import SandrunClient
from tests.journeys.server import REPOSITORY, Server, eventually

SNIPPET = """\
from integrations.python_client.sandrun_client import SandrunClient
client = SandrunClient("http://localhost:8443")
result = client.run_and_wait(
code="print('Hello, Sandrun!')",
interpreter="python3"
)
print(result['logs']['stdout'])
"""
WRITES = (
    "import os; os.makedirs('r'); open('r/a b.txt', 'w').write('done'); print('caf\u00e9 \u2713')"
)


@pytest.fixture(scope="module")
def client(url: str) -> SandrunClient:
    return SandrunClient(f"{url}/")


def test_the_missions_lines_run_and_print_what_the_job_printed(server: Server) -> None:
    lines = SNIPPET.replace(":8443", f":{server.port}")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", lines], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("Hello, Sandrun!\n\n", ""), done


def test_code_is_run_and_everything_is_told(
    client: SandrunClient, capfd: pytest.CaptureFixture[str]
) -> None:
    result = client.run_and_wait(WRITES)
    assert sorted(result) == ["job_id", "logs", "output_files", "status"]
    job = result["job_id"]
    assert isinstance(job, str)
    assert (result["status"]["status"], result["status"]["job_id"]) == ("completed", job)
    assert result["logs"] == {"stdout": "caf\u00e9 \u2713\n", "stderr": ""}
    assert result["output_files"] == ["r/a b.txt"]
    assert capfd.readouterr() == ("", ""), "it is silent"


def test_each_method_answers_as_before(client: SandrunClient, tmp_path: Path) -> None:
    assert client.test_connection() is True
    job = client.submit_code(WRITES)
    status = client.wait_for_completion(job, poll_interval=2)
    assert status == client.get_status(job)
    assert status["execution_metadata"]["exit_code"] == 0
    assert list(status["output_files"]) == client.list_outputs(job) == ["r/a b.txt"]
    assert client.get_logs(job) == {"stdout": "caf\u00e9 \u2713\n", "stderr": ""}
    saved = tmp_path / "saved"
    assert client.download_file(job, "r/a b.txt", str(saved)) == b"done" == saved.read_bytes()
    assert client.download_file(job, "r/a b.txt") == b"done"


@pytest.mark.parametrize(
    ("interpreter", "filename", "code", "said"),
    [
        ("node", None, "console.log(process.argv[1].split('/').pop())", "main.js\n"),
        ("bash", None, 'echo "${0##*/}"', "main.sh\n"),
        ("perl", None, 'print "$0\\n"', "main.txt\n"),
        ("python3", "my.py", "import sys; print(sys.argv[0].split('/')[-1])", "my.py\n"),
    ],
)
def test_code_is_in_the_file_that_it_always_was_in(
    client: SandrunClient, interpreter: str, filename: str | None, code: str, said: str
) -> None:
    job = client.submit_code(code, interpreter, filename)
    client.wait_for_completion(job)
    assert client.get_logs(job)["stdout"].removeprefix("./") == said


def test_a_directory_is_sent_as_it_is_with_all_arguments(
    client: SandrunClient, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("KEY=1")
    (tmp_path / ".gitignore").write_text("data.bin\n")
    (tmp_path / "data.bin").write_bytes(b"\0\xff")
    (tmp_path / "results").mkdir()
    (tmp_path / "main.py").write_text(
        "import os, sys\n"
        "print(sys.argv[1:], open('.env').read(), open('data.bin', 'rb').read(), end=' ')\n"
        "print(os.listdir('results'))\n"
        "open('results/out.json', 'w').write('{}'); open('other', 'w').close()\n"
    )
    result = client.run_and_wait(
        directory=str(tmp_path), entrypoint="main.py", args=["a b"], outputs=["*.json"],
        timeout=20, memory_mb=64,
    )  # fmt: skip
    assert result["logs"]["stdout"] == "['a b'] KEY=1 b'\\x00\\xff' []\n", result["logs"]
    assert result["output_files"] == ["results/out.json"]


def test_a_failure_is_a_status_and_no_error(client: SandrunClient) -> None:
    result = client.run_and_wait("import sys; sys.exit('wrong')")
    assert result["status"]["status"] == "failed"
    assert result["status"]["execution_metadata"]["exit_code"] == 1
    assert result["logs"] == {"stdout": "", "stderr": "wrong\n"}


def test_a_job_that_runs_has_a_status_and_the_logs_until_now(client: SandrunClient) -> None:
    job = client.submit_code("import time; print('up', flush=True); time.sleep(3)")
    assert eventually(lambda: client.get_logs(job)["stdout"] == "up\n", 3)
    assert client.get_status(job)["status"] == "running"
    assert client.wait_for_completion(job)["status"] == "completed"


def test_a_server_that_is_not_there_is_false_and_otherwise_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        nobody = SandrunClient(f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert nobody.test_connection() is False
        with pytest.raises(sandrun.ConnectionFailed):
            nobody.submit_code("print(1)")


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.get_status("job_1764000000_1"),
        lambda client: client.get_logs("job_1764000000_1"),
        lambda client: client.list_outputs("job_1764000000_1"),
        lambda client: client.download_file("job_1764000000_1", "f"),
        lambda client: client.wait_for_completion("job_1764000000_1"),
    ],
)
def test_a_job_that_is_gone_raises_with_the_status_of_the_answer(
    client: SandrunClient, ask: Callable[[SandrunClient], object]
) -> None:
    with pytest.raises(sandrun.JobNotFound) as raised:
        ask(client)
    assert raised.value.status == 404


def test_what_is_wrong_is_refused_and_nothing_to_run_is_a_value_error(
    client: SandrunClient, tmp_path: Path
) -> None:
    (tmp_path / "main.py").touch()
    with pytest.raises(sandrun.Refused) as raised:
        client.submit_directory(os.fspath(tmp_path), "missing.py")
    assert raised.value.status == 400
    with pytest.raises(ValueError, match="Either 'code' or 'directory'"):
        client.run_and_wait()
