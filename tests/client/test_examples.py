"""What integrations/examples shows is executed here, as its first lines say."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.journeys.server import REPOSITORY, Server

EXAMPLES = REPOSITORY / "integrations" / "examples"
EVERYTHING = {
    "agent_loop.py", "autograder.py", "ci_step.sh", "ci_step.yml", "curl_examples.sh",
    "quick_tour.py",
}  # fmt: skip
SUM = "print(sum(int(word) for word in input().split()))"
CASES = [
    {"stdin": "1 2 3\n", "stdout": "6\n", "points": 2},
    {"stdin": "-5 5\n", "stdout": "0\n", "points": 1},
]
SUBMISSIONS = {
    "essay.docx": "Dear teacher",
    "right.py": SUM,
    "=1+1.py": SUM,
    "right.c": "#include <stdio.h>\nint main(void) { int n, s = 0; while (scanf(\"%d\", &n) == 1) "
               "s += n; printf(\"%d\\n\", s); }",
    "right.js": "console.log(require('fs').readFileSync(0, 'utf8').trim().split(' ')"
                ".reduce((sum, word) => sum + +word, 0))",
    "half.py": "print(sum(abs(int(word)) for word in input().split()))",
    "wrong.py": "print('=1+1')",
    "crash.py": "import os; os.kill(os.getpid(), 11)",
    "error.py": "print(undefined)",
    "syntax.c": "int main( {",
    "loop.py": "while True: pass",
    "hog.py": "data = bytearray(1 << 30)\nfor n in range(0, len(data), 4096): data[n] = 1",
    "thief.py": "import glob; print(glob.glob('/job/*'), open('/etc/shadow').read())",
}  # fmt: skip


def run(url: str, command: list[str | Path], **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120,
        env={**os.environ, "SANDRUN_SERVER": url, **more.pop("env", {})}, **more,
    )  # fmt: skip


def python(url: str, name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """As somebody runs it, from anywhere."""
    return run(url, [sys.executable, "-W", "error", EXAMPLES / name, *words], cwd="/")


def test_every_example_is_executed_by_a_test() -> None:
    # curl_examples.sh is by tests/journeys/test_old_clients.py
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == EVERYTHING


def test_the_quick_tour_goes_to_its_end(url: str) -> None:
    done = python(url, "quick_tour.py")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.endswith("== All as it should be\n")
    assert "stdout: line 2" in done.stdout and "JobFailed: failed with exit code 1" in done.stdout


def test_the_agent_learns_from_a_program_that_fails(url: str) -> None:
    done = python(url, "agent_loop.py")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "NameError" in done.stdout
    assert done.stdout.endswith("The primes below 10,000 add up to 5736396.\n")


# ---- the autograder


def submissions(folder: Path, contents: Mapping[str, str]) -> tuple[Path, Path]:
    (folder / "in").mkdir()
    for name, code in contents.items():
        (folder / "in" / name).write_text(code)
    (folder / "cases.json").write_text(json.dumps(CASES))
    return folder / "in", folder / "cases.json"


def grades(file: Path) -> dict[str, dict[str, str]]:
    with file.open(newline="") as table:
        return {row["name"]: row for row in csv.DictReader(table)}


def test_every_submission_has_its_row_whatever_it_is(url: str, tmp_path: Path) -> None:
    folder, cases = submissions(tmp_path, SUBMISSIONS)
    (folder / "project").mkdir()
    (folder / "project/main.py").write_text("from adding import add\nprint(add(input()))")
    (folder / "project/adding.py").write_text("def add(s): return sum(map(int, s.split()))")
    (folder / "empty").mkdir()
    (folder / "link.py").symlink_to(cases)
    os.mkfifo(folder / "pipe.py")
    done = python(
        url, "autograder.py", folder, cases, tmp_path / "grades.csv",
        "--cpu-seconds", "1", "--memory-mb", "64",
    )  # fmt: skip
    assert done.returncode == 0, done
    rows = grades(tmp_path / "grades.csv")
    assert {name: (row["verdict"], float(row["points"])) for name, row in rows.items()} == {
        "right.py": ("accepted", 3),
        "right.c": ("accepted", 3),
        "right.js": ("accepted", 3),
        "project": ("accepted", 3),
        "half.py": ("wrong answer", 2),
        "wrong.py": ("wrong answer", 0),
        "crash.py": ("crash", 0),
        "error.py": ("crash", 0),
        "thief.py": ("crash", 0),
        "syntax.c": ("crash", 0),
        "loop.py": ("time limit", 0),
        "hog.py": ("memory limit", 0),
        "empty": ("not runnable", 0),
        "essay.docx": ("not runnable", 0),
        "link.py": ("not runnable", 0),
        "pipe.py": ("not runnable", 0),
        "'=1+1.py": ("accepted", 3),
    }
    assert "NameError" in rows["error.py"]["message"]
    assert rows["wrong.py"]["message"].startswith("case 1: it printed")
    assert float(rows["loop.py"]["time_s"]) > 0.9
    assert 20 < float(rows["hog.py"]["memory_mb"]) <= 64.5
    assert rows["right.py"]["message"] == "" and float(rows["right.py"]["memory_mb"]) > 1


def test_the_autograder_waits_where_it_is_at_its_limit(tmp_path: Path) -> None:
    folder, cases = submissions(tmp_path, {f"{n}.py": SUM for n in range(3)})
    server = Server()  # with quotas: two jobs at once
    try:
        done = python(
            f"http://127.0.0.1:{server.port}", "autograder.py", folder, cases,
            tmp_path / "grades.csv", "--at-once", "3",
        )  # fmt: skip
    finally:
        server.end()
    assert done.returncode == 0, done
    rows = grades(tmp_path / "grades.csv")
    assert [row["verdict"] for row in rows.values()] == ["accepted"] * 3, rows


def test_without_a_server_the_autograder_says_of_each_that_it_was_not_graded(
    tmp_path: Path,
) -> None:
    folder, cases = submissions(tmp_path, {"a.py": SUM, "b.py": SUM})
    done = python("http://127.0.0.1:1", "autograder.py", folder, cases, tmp_path / "grades.csv")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done
    rows = grades(tmp_path / "grades.csv")
    assert [row["verdict"] for row in rows.values()] == ["not graded"] * 2
    assert "Cannot reach" in rows["a.py"]["message"]


# ---- the CI step


@pytest.mark.parametrize(
    ("code", "exit_code", "says"),
    [
        ("import lib, os; print(lib.WORD, os.listdir('tmp'))", 0, "from the project []\n"),
        (
            "import sys; print('1 failed'); sys.exit(3)",
            3,
            "1 failed\n::error::Sandrun: exit code 3",
        ),
        ("import os; os.kill(os.getpid(), 9)", 1, "::error::Sandrun: ended, signal"),
    ],
)
def test_the_ci_step_ends_as_the_tests_do(
    url: str, tmp_path: Path, code: str, exit_code: int, says: str
) -> None:
    workflow = yaml.safe_load((EXAMPLES / "ci_step.yml").read_text())
    [step] = [step for step in workflow["jobs"]["sandboxed-tests"]["steps"] if "run" in step]
    assert step["env"].keys() == {"SANDRUN_SERVER"}
    copied = tmp_path / "integrations/examples/ci_step.sh"
    copied.parent.mkdir(parents=True)
    shutil.copy(EXAMPLES / "ci_step.sh", copied)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/run.py").write_text(f"import sys; sys.path.append('.')\n{code}")
    (tmp_path / "lib.py").write_text("WORD = 'from the project'")
    (tmp_path / "tmp").mkdir()
    done = run(
        url, ["bash", "-e", "-c", step["run"]], cwd=tmp_path, env={"TMPDIR": str(tmp_path / "tmp")}
    )
    assert done.returncode == exit_code, done
    assert done.stdout.startswith(says) and done.stderr == "", done
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("other", "words", "says"),
    [
        ("http://127.0.0.1:1", [".", "main.py"], "it was not taken"),
        (None, [".", "missing.py"], "missing.py"),
        (None, ["."], "which folder"),
    ],
)
def test_a_ci_step_that_cannot_run_ends_with_125(
    url: str, tmp_path: Path, other: str | None, words: list[str], says: str
) -> None:
    (tmp_path / "main.py").touch()
    script = (EXAMPLES / "ci_step.sh").read_text()
    hasty = tmp_path.with_suffix(".sh")  # which waits 1 s for a server, not ten minutes
    hasty.write_text(re.sub(r"--retry-max-time \d+", "--retry-max-time 1", script))
    done = run(other or url, ["sh", hasty, *words], cwd=tmp_path)
    assert done.returncode == 125, done
    assert done.stdout.startswith("::error::Sandrun: ") and says in done.stdout, done
