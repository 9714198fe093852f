"""The other commands: jobs that were submitted before, and what needs no job."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.client.command import Command
from tests.journeys.server import REPOSITORY, Server, eventually

PAGE = (REPOSITORY / "docs/cli.md").read_text()
SLOW = b"import time\nprint('begun', flush=True)\ntime.sleep(60)"


@pytest.fixture
def sandrun(url: str, tmp_path: Path) -> Command:
    return Command(url, tmp_path)


def submitted(sandrun: Command, code: bytes, *options: str) -> str:
    done = sandrun("submit", "-", *options, stdin=code)
    assert (done.code, done.stderr) == (0, b""), done
    return done.text.strip()


# ---- jobs


def test_a_job_is_submitted_watched_and_read(sandrun: Command) -> None:
    code = b"import sys\nprint(1)\nprint(2, file=sys.stderr)\nopen('x', 'w').write('hi')\nexit(7)"
    job = submitted(sandrun, code)
    assert sandrun("logs", "-f", job) == (7, b"1\n", b"2\n")
    assert sandrun("wait", job) == (7, b"", b"")
    assert sandrun("logs", job) == (0, b"1\n", b"2\n")
    assert json.loads(sandrun("wait", job, "--json").stdout)["stderr"] == "2\n"
    assert json.loads(sandrun("logs", job, "--json").stdout) == {"stdout": "1\n", "stderr": "2\n"}
    frames = [json.loads(line) for line in sandrun("logs", "-f", job, "--json").text.splitlines()]
    assert frames[-1]["type"] == "end"
    assert b"failed with exit code 7" in sandrun("status", job).stdout
    assert json.loads(sandrun("status", job, "--json").stdout)["reason"] == "exit"


def test_watching_is_not_ended_with_the_job_but_without_it(sandrun: Command) -> None:
    job = submitted(sandrun, SLOW)
    for words, again in ((("logs", "-f"), rf"sandrun logs -f {job} --since \d+"),
                         (("wait",), f"sandrun wait {job}")):  # fmt: skip
        terminal = sandrun.terminal(*words, job)
        terminal.wait_for(b"begun" if "logs" in words else b"Running")
        terminal.type(b"\x03")
        done = terminal.end()
        assert done.code == 130
        assert re.search(rf"still running. To go on: {again}\n$", done.said)
    assert json.loads(sandrun("status", job, "--json").stdout)["status"] == "running"
    assert sandrun("cancel", job).code == 0


def test_its_files_are_listed_printed_and_saved(sandrun: Command) -> None:
    code = (
        b"import os\nos.makedirs('d')\nopen('d/x', 'wb').write(b'\\xff\\n')\n"
        b"open(b'\\xfe', 'w').write('odd')"
    )
    job = submitted(sandrun, code)
    assert sandrun("wait", job).code == 0
    assert sandrun("get", job).text.split() == ["2", "B", "d/x", "3", "B", "\\xfe"]
    assert sandrun("get", job, "d/x") == (0, b"\xff\n", b"")
    assert sandrun("get", job, "\\xfe") == (0, b"odd", b"")
    assert sandrun("get", job, "-o", "all") == (0, b"", b"")
    assert sandrun("get", job, "d/x", "-o", "one").code == 0
    assert (sandrun.home / "all/d/x").read_bytes() == b"\xff\n"
    saved = [path.name for path in (sandrun.home / "one").rglob("*")]
    assert sorted(saved) == ["d", "x"]
    assert (
        sandrun("get", job, "d/y").said == "sandrun: The job has made no d/y. Did you mean d/x?\n"
    )


def test_whoever_submitted_it_may_end_it(server: Server, sandrun: Command) -> None:
    job = submitted(sandrun, SLOW)
    token = sandrun.home / "runtime/sandrun" / job
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.parent.stat().st_mode & 0o777 == 0o700
    elsewhere = {"XDG_RUNTIME_DIR": "/nowhere"}
    refused = sandrun("cancel", job, env=elsewhere)
    assert refused.code == 125
    assert refused.said == (
        f"sandrun: {job} was not submitted from here. Its owner_token ends it: --token TOKEN.\n"
    )
    assert sandrun("cancel", job) == (0, f"{job}\n".encode(), b"")
    done = sandrun("wait", job)
    assert (done.code, done.said) == (130, "sandrun: cancelled\n")
    assert sandrun("rm", job).code == 0
    assert not token.exists()
    assert eventually(lambda: server.get("/stats")["system"]["active_jobs"] == 0, 10)


def test_rm_has_jobs_forgotten(sandrun: Command) -> None:
    jobs = [submitted(sandrun, b"0") for _ in range(2)]
    assert sandrun("rm", *jobs).text.split() == jobs
    gone = sandrun("status", jobs[0], "--json")
    assert (gone.code, json.loads(gone.stdout)["reason"]) == (125, "unknown_job")


def test_a_token_that_cannot_be_kept_is_told(sandrun: Command) -> None:
    done = sandrun("submit", "-", stdin=SLOW, env={"XDG_RUNTIME_DIR": "/nowhere"})
    found = re.fullmatch(r"sandrun: to end it: sandrun (cancel \S+ --token \S+)\n", done.said)
    assert found and sandrun(*found[1].split()).code == 0


def test_a_token_goes_to_no_other_server(server: Server, sandrun: Command) -> None:
    job = submitted(sandrun, SLOW)
    other = f"http://localhost:{server.port}"  # another name
    assert "not submitted from here" in sandrun("cancel", job, "-s", other).said
    assert sandrun("cancel", job).code == 0


def test_expired_tokens_are_dropped(sandrun: Command) -> None:
    submitted(sandrun, b"0")
    folder = sandrun.home / "runtime/sandrun"
    old = folder / "job-old"
    old.write_text(json.dumps({"owner_token": "x", "expires_at": "2020-01-01T00:00:00Z"}))
    job = submitted(sandrun, b"0")
    assert not old.exists() and (folder / job).exists()


def test_a_folder_that_others_can_read_keeps_no_token(sandrun: Command) -> None:
    folder = sandrun.home / "runtime/sandrun"
    folder.mkdir(mode=0o755)
    assert "--token" in sandrun("submit", "-", stdin=b"0").said
    assert not list(folder.iterdir())


def test_submit_can_be_asked_for_json(sandrun: Command) -> None:
    found = json.loads(sandrun("run", "-d", "-", "--json", stdin=b"print(1)").stdout)
    assert found["job_id"] and found["owner_token"]


def test_all_of_a_long_stdin_is_sent_before_submit_returns(sandrun: Command) -> None:
    (sandrun.home / "long").write_bytes(bytes(1 << 20))
    code = b"import sys; print(len(sys.stdin.buffer.read()))"
    job = submitted(sandrun, code, "--stdin", "long")
    assert sandrun("logs", "-f", job).stdout == b"1048576\n"


# ---- the server


def test_limits_are_told(sandrun: Command) -> None:
    done = sandrun("limits")
    assert done.code == 0 and "300 s, 512 MB of memory" in done.text
    assert re.search(r"^python3 +Python 3\S+  \.py$", done.text, re.MULTILINE)
    found = json.loads(sandrun("limits", "--json").stdout)
    assert found["limits"]["memory_mb"] == 512 and "python3" in found["interpreters"]


def test_which_server_is_asked(url: str, sandrun: Command) -> None:
    """By the option, the environment, the project, the user's own file: the first that says."""
    nobody = "http://127.0.0.1:1"
    deep = sandrun.home / "project/deep"
    deep.mkdir(parents=True)
    project, user = deep.parent / "pyproject.toml", sandrun.home / "config/sandrun/config.toml"
    user.parent.mkdir(parents=True)
    unset = {"SANDRUN_SERVER": ""}

    def asked(*options: str, env: dict[str, str] = unset) -> str:
        done = sandrun("limits", "--json", *options, env=env, cwd=deep)
        found = json.loads(done.stdout)
        return str(found.get("server") or found["error"])

    user.write_text(f'server = "{url}"')
    assert asked() == url
    user.write_text(f'server = "{nobody}"')
    (deep / "pyproject.toml").write_text("[project]\nname = 'x'")
    project.write_text(f'[tool.sandrun]\nserver = "{url}"')
    assert asked() == url
    sandrun.env["SANDRUN_SERVER"] = ""
    shown = sandrun.terminal("limits", cwd=deep).end()
    assert shown.said == f"sandrun: the server is {url}, says {project}\n"
    project.write_text(f'[tool.sandrun]\nserver = "{nobody}"')
    assert asked(env={"SANDRUN_SERVER": url}) == url
    assert asked("--server", url, env={"SANDRUN_SERVER": nobody}) == url
    assert "127.0.0.1:1" in asked()
    project.write_text("[tool.sandrun]\nserver = 5")
    assert "must be the address" in asked()
    project.write_text("[tool.sandrun\nserver")
    assert "is no TOML" in asked()


def test_a_server_at_its_limit_is_waited_for_or_not(tmp_path: Path) -> None:
    server = Server(env={"SANDRUN_CONCURRENT_JOBS": 1})
    try:
        sandrun = Command(f"http://127.0.0.1:{server.port}", tmp_path)
        (tmp_path / "next.py").write_text("print('next')")
        job = submitted(sandrun, SLOW)
        refused = sandrun("run", "next.py", "--no-wait", "--json")
        assert (refused.code, json.loads(refused.stdout)["reason"]) == (125, "concurrent_jobs")
        waiting = sandrun.terminal("run", "next.py")
        waiting.wait_for(b"Max concurrent jobs reached (1).")
        assert sandrun("cancel", job).code == 0
        done = waiting.end()
        assert done[:2] == (0, b"next\n")
        left = [int(seconds) for seconds in re.findall(r"Asking again in (\d+) s", done.said)]
        assert len(left) > 1 and left == sorted(left, reverse=True) and left[-1] == 1
    finally:
        assert server.end() == 0, server.banner


def test_another_server_is_told_from_sandrun(sandrun: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        done = sandrun("submit", "-", "-s", url, stdin=b"print(1)")
        thread.join()
    assert done.code == 125 and "is it Sandrun?" in done.said and done.said.count("\n") == 1


# ---- what needs no server


def test_init_writes_what_it_finds(sandrun: Command) -> None:
    (sandrun.home / "job.py").write_text("print('ran')")
    assert sandrun("init").code == 0
    path = sandrun.home / "job.json"
    assert json.loads(path.read_text()) == {"entrypoint": "job.py", "interpreter": "python3"}
    (sandrun.home / "other.py").write_text("")
    assert sandrun("run", ".").stdout == b"ran\n"
    again = sandrun("init")
    assert (again.code, again.said) == (
        125, "sandrun: In . there are job.py, other.py: --entrypoint says which one is started.\n"
    )  # fmt: skip
    there = sandrun("init", "-e", "other.py")
    assert there.said == "sandrun: ./job.json is there already, and stays as it is.\n"
    assert json.loads(path.read_text())["entrypoint"] == "job.py"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_what_to_complete(sandrun: Command, shell: str) -> None:
    done = sandrun("completion", shell)
    assert done.code == 0
    assert all(word in done.text for word in ("submit", "timestamps", "doctor"))
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, check=True)


def test_every_command_has_a_help(sandrun: Command) -> None:
    whole = sandrun("--help")
    assert sandrun() == whole and whole.code == 0
    commands = re.findall(r"^  (\w+)  ", whole.text, re.MULTILINE)
    assert {"run", "logs", "verify", "serve", "completion"} <= set(commands)
    for command in commands:
        done = sandrun(command, "--help")
        assert (done.code, done.stderr) == (0, b""), command
        assert command in done.text or "script/server" in done.text


def test_an_unknown_command_is_125_with_a_suggestion(sandrun: Command) -> None:
    done = sandrun("statsu")
    assert (done.code, done.stdout) == (125, b"")
    assert done.said.startswith("sandrun: There is no command statsu. Did you mean status?")
    assert sandrun("--server", "x", "limits").code == 125


def test_the_servers_commands_say_what_they_need(sandrun: Command, tmp_path: Path) -> None:
    """Where only the client is installed."""
    place = tmp_path / "client"
    place.mkdir()
    (place / "sandrun").symlink_to(REPOSITORY / "sandrun")
    code = (
        "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p and p != "
        f"{str(REPOSITORY)!r}]; sys.path.insert(0, {str(place)!r})\n"
        "from sandrun.commands import operating; operating._SCRIPT = ''\n"
        "from sandrun.__main__ import main; main()"
    )
    for command in ("serve", "keygen", "doctor"):
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, command, "--help"], capture_output=True, text=True
        )
        assert done.returncode == 125
        assert "pip install 'sandrun-server[server]'" in done.stderr, done


def test_a_server_starts_where_there_is_no_checkout(sandrun: Command) -> None:
    code = (
        "import sys; sys.argv = ['sandrun', 'serve', '--port', '0']\n"
        "from sandrun.commands import operating; operating._SCRIPT = ''\n"
        "from sandrun.__main__ import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        cwd="/", text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        said = ""
        while "ready on http://" not in said and (line := process.stdout.readline()):
            said += line
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=20)[0]
    assert process.returncode == 0 and "ready on http://" in said, said


def test_nothing_slow_is_imported_that_a_command_does_not_need(sandrun: Command) -> None:
    slow = {"h11", "ssl", "asyncio", "pathspec", "nacl", "json", "tarfile", "tomllib", "difflib"}
    for words, more in (
        (("--help",), {"sandrun.commands", "argparse", "importlib.metadata"}),
        (("--version",), {"sandrun.commands", "argparse"}),
        (("run", "--help"), set()),
    ):
        code = (
            f"import sys; sys.argv = ['sandrun', *{words!r}]\n"
            "from sandrun.__main__ import main\n"
            "try: main()\n"
            "finally: print(*sys.modules, file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
        heavy = slow if "run" not in words else slow - {"json", "tarfile"}
        assert not (heavy | more) & set(done.stderr.split()), words


# ---- the page


def test_the_commands_of_the_page_work_one_after_the_other(sandrun: Command) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    words = " ".join(sandrun.words())
    done = subprocess.run(
        ["bash", "-c", f'set -eu -o pipefail\nsandrun() {{ {words} "$@"; }}\n' + "".join(blocks)],
        capture_output=True, text=True, cwd=sandrun.home, env=sandrun.env, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("42\n42\n['--epochs', '3']\n\"exit_code\": 0\n")
    assert (sandrun.home / "clean.csv").read_text() == "A,B\na,b\n"
    assert (sandrun.home / "out/plot.png").read_text() == "picture"
    assert (sandrun.home / "plot.png").read_text() == "picture"


def test_the_header_on_the_page_is_one(sandrun: Command) -> None:
    [block] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    code = f"{block}import sys; print(sys.argv[1:])".encode()
    assert sandrun("run", "-", stdin=code).stdout == b"['--epochs', '3']\n"
