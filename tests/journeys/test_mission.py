"""The main job of the project on real input: code in, logs and files out, over HTTP."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.journeys.server import Server, targz

PLOT = b"""
import pathlib, sys
from helper.words import greeting
print(greeting(sys.argv[1]))
print("careful", file=sys.stderr)
pathlib.Path("results/deep").mkdir(parents=True)
pathlib.Path("results/deep/data.bin").write_bytes(bytes(range(256)) * 1000)
pathlib.Path("plot.png").write_bytes(b"\\x89PNG fake")
pathlib.Path("notes.txt").write_text("not asked for")
"""


def test_the_missions_curl_line_runs_a_project(server: Server, tmp_path: Path) -> None:
    archive = tmp_path / "job.tar.gz"
    archive.write_bytes(
        targz({"main.py": b"print('hello')\nopen('out.bin', 'wb').write(b'\\0\\xff')"})
    )
    done = subprocess.run(
        ["curl", "-s", "-X", "POST", f"http://localhost:{server.port}/submit",
         "-F", f"files=@{archive}",
         "-F", 'manifest={"entrypoint":"main.py","interpreter":"python3"}'],
        capture_output=True, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["status"] == "queued"
    status = server.finish(answer["job_id"])
    assert (status["status"], status["reason"]) == ("completed", None)
    assert status["execution_metadata"]["exit_code"] == 0
    assert server.get(f"/logs/{answer['job_id']}")["stdout"] == "hello\n"
    assert server.request("GET", f"/download/{answer['job_id']}/out.bin")[1] == b"\0\xff"


def test_a_project_with_modules_arguments_and_outputs_in_folders(server: Server) -> None:
    files = {
        "main.py": PLOT,
        "helper/__init__.py": b"",
        "helper/words.py": b"def greeting(n): return 'hi ' + n",
    }
    job = server.start(
        {"project.tar.gz": targz(files)}, entrypoint="main.py", args=["a b;c"],
        outputs=["*.png", "results/"],
    )  # fmt: skip
    status = server.finish(job)
    assert status["status"] == "completed", status
    logs = server.get(f"/logs/{job}")
    assert (logs["stdout"], logs["stderr"]) == ("hi a b;c\n", "careful\n")
    listing = server.get(f"/outputs/{job}")
    assert sorted(listing["files"]) == ["plot.png", "results/deep/data.bin"]
    data = server.request("GET", f"/download/{job}/results/deep/data.bin")[1]
    assert data == bytes(range(256)) * 1000
    assert (
        status["output_files"]["results/deep/data.bin"]["sha256"]
        == hashlib.sha256(data).hexdigest()
    )
    assert server.request("GET", f"/download/{job}/notes.txt")[0] == 404
    assert server.request("GET", f"/download/{job}/main.py")[0] == 404


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("index.js", "console.log('node', process.argv[2])", "node x\n"),
        ("run.sh", 'echo "bash $1"', "bash x\n"),
        ("main.pl", 'print "perl $ARGV[0]\\n"', "perl x\n"),
        (
            "main.c",
            '#include <stdio.h>\nint main(int n, char **a) { printf("c %s\\n", a[1]); }',
            "c x\n",
        ),
        (
            "main.cpp",
            "#include <iostream>\nint main(int, char **a) { std::cout << a[1] << '\\n'; }",
            "x\n",
        ),
    ],
)
def test_other_languages_run_by_their_extension(
    server: Server, name: str, code: str, said: str
) -> None:
    status, logs = server.run({name: code.encode()}, entrypoint=name, args=["x"])
    assert (status["status"], logs["stdout"]) == ("completed", said), (status, logs)


def test_sh_runs_when_it_is_asked_for(server: Server) -> None:
    status, logs = server.run({"x": b"echo sh"}, entrypoint="x", interpreter="sh")
    assert (status["status"], logs["stdout"]) == ("completed", "sh\n")


def test_numpy_of_the_machine_can_be_used(server: Server) -> None:
    code = b"import numpy; print(numpy.linalg.svd(numpy.eye(3))[1].sum())"
    status, logs = server.run({"main.py": code}, entrypoint="main.py")
    assert (status["status"], logs["stdout"]) == ("completed", "3.0\n"), logs


def test_a_compile_error_is_the_programs_own_fault(server: Server) -> None:
    status, logs = server.run({"main.c": b"int main( { }"}, entrypoint="main.c")
    assert (status["status"], status["reason"]) == ("failed", "exit")
    assert "main.c" in logs["stderr"]


def test_standard_input_and_environment_reach_the_program(server: Server) -> None:
    code = b"import os, sys; print(sys.stdin.read() + os.environ['NAME'])"
    status, logs = server.run(
        {"main.py": code}, entrypoint="main.py", stdin="typed \u2713 ", env={"NAME": "value"}
    )
    assert logs["stdout"] == "typed \u2713 value\n", (status, logs)


def test_an_exit_code_and_a_signal_are_told_apart(server: Server) -> None:
    status, _ = server.run({"main.py": b"raise SystemExit(42)"}, entrypoint="main.py")
    assert (status["status"], status["reason"]) == ("failed", "exit")
    assert status["execution_metadata"]["exit_code"] == 42
    status, _ = server.run({"main.py": b"import os; os.abort()"}, entrypoint="main.py")
    assert (status["reason"], status["signal"]) == ("signal", 6)


@pytest.mark.parametrize(
    ("files", "manifest"),
    [
        ({"x.tar.gz": b"no archive"}, {"entrypoint": "main.py"}),
        ({"x.tar.gz": targz({"main.py": b"1" * 5000})[:-20]}, {"entrypoint": "main.py"}),
        ({"x.tar.gz": targz({"../main.py": b""})}, {"entrypoint": "main.py"}),
        ({"x.tar.gz": targz({"/etc/passwd": b""})}, {"entrypoint": "main.py"}),
        ({"x.tar.gz": targz({"main.py": b""})}, {"entrypoint": "mian.py"}),
        ({"x.tar.gz": targz({"main.py": b""})}, {"entrypoint": "../main.py"}),
        ({"main.py": b""}, {"entrypoint": "main.py", "interpreter": "/bin/sh"}),
        ({"main.py": b""}, {"entrypoint": "main.py", "interpreter": "cobol"}),
        ({"main.py": b""}, {"entrypoint": "main.py", "timeout": 0}),
        ({"main.py": b""}, {"entrypoint": "main.py", "memory_mb": 10**9}),
        ({"main.py": b""}, {"entrypoint": "main.py", "outputs": ["/etc/*"]}),
        ({"main.py": b""}, '{"entrypoint": '),
        ({"main.py": b""}, "[" * 100_000),
        ({"data.csv": b""}, None),
        ({}, {"entrypoint": "main.py"}),
    ],
)
def test_what_cannot_run_is_refused_with_a_sentence(
    server: Server, files: dict[str, bytes], manifest: dict[str, object] | str | None
) -> None:
    status, answer = server.submit(files, manifest)
    assert 400 <= status < 500, (status, answer)
    assert len(answer["error"]) > 10 and "Traceback" not in answer["error"], answer
    assert server.get("/health")["status"] == "healthy"


def test_an_unknown_job_is_404_everywhere(server: Server) -> None:
    for path in ("/status/job-x", "/logs/job-x", "/outputs/job-x", "/download/job-x/f", "/nothing"):
        status, body, _ = server.request("GET", path)
        assert status == 404 and json.loads(body)["error"], path
