"""The commands that the page gives to copy are run as they are, by bash, curl, the repository's own
`sandrun` and Python, against a real server: each prints what the job prints.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.server import Server

COPIES = Path(__file__).parents[2] / "frontend/static/frontend/copies.js"
TELLS = """\
import json, os, sys
here = sorted(os.path.join(at, name)[2:] for at, _, names in os.walk(".") for name in names)
texts = {name: open(name, "rb").read().decode("latin-1") for name in here if name != MAIN}
stdin = sys.stdin.buffer.read().decode()
print(json.dumps([sys.argv[1:], stdin, texts, MAIN, os.environ.get("WORD")]))
"""
WORDS = [
    "--epochs",
    "3",
    "",
    "a b",
    "it's",
    '"',
    "\\",
    "$HOME",
    "`id`",
    "*",
    "~",
    "a\nb",
    "EOF",
    "-",
    "--",
    "@x",
    "ü",
    "😀",
    "\u202e",
    "\x1b[2J",
    "\t",
    "\r",
    "a;type=text/x",
    "{}",
    "[1]",
    "%41",
    "!!",
    "&b=c",
    "#",
    "'''",
    "\x85",
    "\u200d",
    "\ufeff",
    "x" * 300,
    "<(id)",
    "\x7f",
    "\\x41",
    "\\'",
    "$'\\n'",
]
NAMES = [
    "data.csv",
    "src/util.py",
    "a b.txt",
    "ü.txt",
    "deep/er/x;y,z.txt",
    "q'uote.txt",
    "do$llar",
    "-dash",
    "deep/data.csv",
    "@at",
    "=eq=",
    "sub/#hash",
    "a=b;type=c",
    "per%41cent",
    "{a}.txt",
    "[0-9].txt",
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("--no-quotas")
    yield server
    assert server.end() == 0, server.banner


def commands(jobs: list[Any]) -> list[dict[str, str]]:
    code = (
        f"import {{ copies }} from {json.dumps(str(COPIES))};"
        "const jobs = JSON.parse((await import('node:fs')).readFileSync(0));"
        "console.log(JSON.stringify(jobs.map(copies)))"
    )
    done = subprocess.run(
        ["node", "--input-type=module", "-e", code],
        input=json.dumps(jobs), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def run(command: str, folder: Path, by: str) -> str:
    """What it prints to stdout."""
    words = [sys.executable, "-c", command] if by == "python" else ["bash", "-c", command]
    bin = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def printed(told: str) -> str:
    """The job's stdout, also where the answer is JSON with all about it."""
    if told.startswith("{"):
        stdout: str = json.loads(told)["logs"]["stdout"]
        return stdout
    return told


def drawn(pick: random.Random, server: Server, names: list[str]) -> dict[str, Any]:
    """A job that tells what it was given."""
    manifest: dict[str, Any] = {"args": pick.sample(WORDS, pick.randint(0, 6))}
    main = pick.choice(["main.py", "main.py", "solve it's.py"])
    if pick.random() < 0.6:
        manifest["interpreter"] = pick.choice(["python3", "python"])
    if pick.random() < 0.6:
        manifest["stdin"] = "\n".join(pick.sample(WORDS, 5)) + pick.choice(["", "\n"])
    if pick.random() < 0.3:
        manifest["env"] = {"WORD": pick.choice([word for word in WORDS if word])}
    if pick.random() < 0.4:
        limits = {"timeout": 20, "memory_mb": 100, "cpu_seconds": 2.5, "ttl": 30, "nonce": "n"}
        manifest |= limits | {"outputs": ["*.txt", "-x"], "stdin_live": False}
    if names or pick.random() < 0.5:
        manifest["entrypoint"] = main
    code = TELLS.replace("MAIN", json.dumps(main)) + pick.choice(
        ["", "# EOF\nEOF2 = 1\n", '# """\\']
    )
    texts = {main: code} | {name: f"{name}\0\r\n" for name in names}
    files = [{"path": name, "text": text, "size": len(text)} for name, text in texts.items()]
    for file in files[1:]:
        file["text"] = None
    return {
        "server": f"http://127.0.0.1:{server.port}",
        "manifest": manifest,
        "files": files,
        "texts": texts,
    }


def expected(job: dict[str, Any]) -> list[Any]:
    manifest, main = job["manifest"], job["files"][0]["path"]
    texts = {name: text for name, text in job["texts"].items() if name != main}
    texts = {name: text.encode().decode("latin-1") for name, text in texts.items()}
    word = manifest.get("env", {}).get("WORD")
    return [manifest["args"], manifest.get("stdin", ""), texts, main, word]


@pytest.mark.parametrize("several", [False, True])
def test_each_copy_runs_the_same_job(server: Server, several: bool, tmp_path: Path) -> None:
    pick = random.Random(f"copies {several}")
    jobs = []
    for _ in range(10):
        jobs.append(drawn(pick, server, pick.sample(NAMES, pick.randint(1, 5)) if several else []))
    for number, (job, found) in enumerate(zip(jobs, commands(jobs), strict=True)):
        folder = tmp_path / str(number)
        if several:
            write(folder, job["texts"])
        else:
            folder.mkdir()  # it has its code in it, and needs no file
        for by, command in found.items():
            told = json.loads(printed(run(command, folder, by)))
            assert told == expected(job), (by, command)


def write(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, newline="")


def test_copies_of_projects_with_archives_and_odd_names_run_too(
    server: Server,
    tmp_path: Path,
) -> None:
    pick = random.Random("odd")
    many = [f"folder {number % 3}/{number}.txt" for number in range(30)]
    for number, names in enumerate(
        (["d.zip", "x.tar.gz"], ['q"uote', "line\nend", "co:lon"], many)
    ):
        job = drawn(pick, server, names)
        folder = tmp_path / str(number)
        write(folder, job["texts"])
        for by, command in commands([job])[0].items():
            assert json.loads(printed(run(command, folder, by))) == expected(job), (by, command)


def test_other_languages_keep_their_names_and_their_text(server: Server, tmp_path: Path) -> None:
    for path, interpreter, text in (
        ("main.c", "c", '#include <stdio.h>\nint main(void) { puts("\\t\\"Ü\\""); return 0; }'),
        (
            "main.sh",
            "bash",
            'cat <<\'EOF\'\n$HOME `id` \\n\n\'\'\'\nEOF\necho """a""" \'\\\' "\n"\n',
        ),
        ("main.sh", "", "echo $((6 * 7))"),
        ("odd name.pl", "", 'print "a\\\\b\\$\\n";\n'),
        ("main.py", "python3", "print('EOF')\nEOF = 1\nEOF2 = '''\nEOF\nEOF2\n'''\nprint(EOF2)\n"),
    ):
        manifest = {"interpreter": interpreter} if interpreter else {"entrypoint": path}
        job = {
            "server": f"http://127.0.0.1:{server.port}",
            "manifest": manifest,
            "files": [{"path": path, "text": text, "size": 1}],
        }
        status, logs = server.run({path: text.encode()}, **manifest)
        assert logs["stdout"], (status, logs)
        for by, command in commands([job])[0].items():
            assert printed(run(command, tmp_path, by)) == logs["stdout"], (by, command)


def test_text_that_a_terminal_would_obey_is_not_put_into_a_command() -> None:
    for text in ("a\x1b[201~\nid\n", "a\rid", "\0", "\x03", "\x9b", "\x7f"):
        files = [{"path": "main.py", "text": f"print(1){text}", "size": 9}]
        manifest = {"interpreter": "python3", "args": [text], "stdin": text, "env": {"A": text}}
        for by, command in commands([{"server": "http://h", "manifest": manifest, "files": files}])[
            0
        ].items():
            assert all(letter.isprintable() or letter == "\n" for letter in command), (by, command)
            assert "print(1)" not in command
