"""`sandrun run` is as if the program ran here: streams and exit code are its own, in a pipe and in
a terminal.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.command import ERASE, Command, Done, of_the_job
from tests.client.cutting import Proxy
from tests.journeys.server import Server, eventually, targz

Run = Callable[..., Done]
ENDLESS = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.1)"


@pytest.fixture
def sandrun(url: str, tmp_path: Path) -> Command:
    return Command(url, tmp_path)


@pytest.fixture(params=["pipe", "terminal"])
def run(request: pytest.FixtureRequest, sandrun: Command) -> Run:
    """Runs code in a file, in either; stderr without Sandrun's own words."""

    def run(code: str, *arguments: str, name: str = "main.py") -> Done:
        (sandrun.home / name).write_text(code)
        words = ("run", name, *arguments)
        if request.param == "pipe":
            return sandrun(*words)
        done = sandrun.terminal(*words).end()
        return Done(done.code, done.stdout, of_the_job(done.stderr))

    return run


def is_idle(server: Server) -> bool:
    return bool(server.get("/stats")["system"]["active_jobs"] == 0)


# ---- streams and exit codes


def test_the_exit_code_is_the_jobs(run: Run) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(42)"
    assert run(code) == (42, b"out\n", b"err\n")


def test_bytes_pass_as_they_are(run: Run) -> None:
    code = (
        "import os\nos.write(1, bytes(range(256)) * 400)\n"
        "os.write(2, bytes(range(255, -1, -1)) * 4 + b'no end')"
    )
    done = run(code)
    assert (done.code, done.stdout) == (0, bytes(range(256)) * 400)
    assert done.stderr.rstrip(b"\n") == bytes(range(255, -1, -1)) * 4 + b"no end"


def test_nothing_is_added_to_a_job_that_prints_nothing(sandrun: Command) -> None:
    (sandrun.home / "main.py").write_text("")
    assert sandrun("run", "main.py") == (0, b"", b"")


def test_a_signal_is_128_and_its_number(run: Run) -> None:
    done = run("import os; os.kill(os.getpid(), 11)")
    assert done[:2] == (139, b"")


def test_a_job_out_of_time_is_124(run: Run) -> None:
    done = run("print('begun', flush=True)\nwhile True: pass", "-t", "1s")
    assert done[:2] == (124, b"begun\n")
    done = run("while True: pass", "--cpu", "0.2")
    assert done[:2] == (124, b"")


def test_a_job_out_of_memory_is_137(run: Run) -> None:
    done = run("print('begun', flush=True)\nx = bytearray(1 << 30)", "-m", "64M")
    assert done[:2] == (137, b"begun\n")


def test_why_it_was_ended_is_said_also_in_a_pipe(sandrun: Command) -> None:
    for code, options, why in (
        ("while True: pass", ("-t", "1s"), "stopped at the time limit, after 1."),
        ("x = bytearray(1 << 30)", ("-m", "64M"), "out of memory, at "),
        ("import os; os.abort()", (), "crashed: signal 6"),
    ):
        done = sandrun("run", "-", *options, stdin=code.encode())
        assert done.said.startswith(f"sandrun: {why}"), done
        assert done.said.count("\n") == 1


def test_a_flood_comes_to_its_end(run: Run) -> None:
    """What is missing, since the server keeps 10 MB, is said."""
    code = "import sys\nsys.stdout.write(''.join(f'{n:15}\\n' for n in range(700_000)))"
    whole = b"".join(b"%15d\n" % n for n in range(700_000))  # 11 MB
    done = run(code)
    assert done.code == 0
    assert done.stdout[:1_000_000] == whole[:1_000_000]
    assert done.stdout[-1_000_000:] == whole[-1_000_000:]
    missing = len(whole) - len(done.stdout)
    assert missing >= 0
    if b"missing" not in done.stderr:
        assert done.stdout == whole or not done.stderr


def test_a_pipe_that_does_not_block_gets_everything(sandrun: Command) -> None:
    """Whoever shares it may have made it so; it takes some bytes, or none, at a time."""
    (sandrun.home / "main.py").write_text("for n in range(300_000): print(n)")
    read, write = os.pipe()
    os.set_blocking(write, False)
    with open(read, "rb") as reader:
        process = subprocess.Popen(
            sandrun.words("run", "main.py"), stdout=write, env=sandrun.env, cwd=sandrun.home
        )

        def is_stuck() -> bool:
            full = not select.select([], [write], [], 0)[1]
            return full and "S (sleeping)" in Path(f"/proc/{process.pid}/status").read_text()

        assert eventually(is_stuck, 20)
        os.close(write)
        assert reader.read() == b"".join(b"%d\n" % n for n in range(300_000))
        assert process.wait(20) == 0


def test_a_broken_connection_loses_nothing(server: Server, sandrun: Command) -> None:
    code = b"import sys\nfor n in range(200_000): print(n)\nsys.exit(3)"
    whole = b"".join(b"%d\n" % n for n in range(200_000))

    with Proxy(server.port, lambda number, head: 300_000) as proxy:
        done = sandrun("run", "-", "-s", proxy.url, stdin=code)
        assert sum(b"/logs/" in head for head in proxy.heads) > 3
    assert done == (3, whole, b"")


# ---- what is run


def test_code_comes_from_standard_input(sandrun: Command) -> None:
    assert sandrun("run", "-", stdin=b"print(1)") == (0, b"1\n", b"")
    node = sandrun("run", "-", "-i", "node", stdin=b"console.log(process.argv[2])")
    assert node[:2] == (0, b"undefined\n")


def test_code_is_typed_into_a_terminal(sandrun: Command) -> None:
    terminal = sandrun.terminal("run", "-")
    terminal.wait_for(b"Reading code from the terminal, Ctrl-D to run")
    terminal.type(b"print(6 * 7)\n\x04")
    assert terminal.end()[:2] == (0, b"42\n")


def test_what_follows_two_dashes_is_the_programs(sandrun: Command) -> None:
    (sandrun.home / "main.py").write_text("import sys; print(sys.argv[1:])")
    done = sandrun("run", ".", "--", "--epochs", "3", "--", "-q")
    assert done == (0, b"['--epochs', '3', '--', '-q']\n", b"")


@pytest.mark.parametrize("rows", [3, 300_000])
def test_a_file_becomes_its_standard_input(sandrun: Command, rows: int) -> None:
    """A short one with the job, a long one while it runs."""
    (sandrun.home / "clean.py").write_text(
        "import sys\nfor line in sys.stdin: print(line.strip().upper())"
    )
    (sandrun.home / "d.csv").write_text("a,b\n" * rows)
    words = " ".join(sandrun.words("run", "clean.py", "--stdin", "d.csv"))
    subprocess.run(
        f"{words} > out.csv", shell=True, check=True, cwd=sandrun.home, env=sandrun.env, timeout=60
    )
    assert (sandrun.home / "out.csv").read_text() == "A,B\n" * rows


def test_our_standard_input_is_read_only_when_asked(sandrun: Command) -> None:
    (sandrun.home / "main.py").write_text("print(len(input()))")
    assert sandrun("run", "main.py", "--stdin", "-", stdin=b"four\n")[:2] == (0, b"4\n")
    read, write = os.pipe()  # nobody ever closes it: whoever reads it hangs
    try:
        (sandrun.home / "main.py").write_text("print(1)")
        done = subprocess.run(
            sandrun.words("run", "main.py"), stdin=read, capture_output=True, timeout=30,
            env=sandrun.env, cwd=sandrun.home,
        )  # fmt: skip
    finally:
        os.close(read)
        os.close(write)
    assert done.stdout == b"1\n"


def test_options_become_the_manifest(sandrun: Command) -> None:
    (sandrun.home / "data.txt").write_text("data")
    code = (
        "import os\nprint(os.environ['A'], os.environ['B'], open('in.txt').read())\n"
        "open('x.png', 'w'), open('y.txt', 'w')"
    )
    done = sandrun(
        "run", "-", "--env", "A=1", "--env", "B", "-f", "data.txt:in.txt", "--outputs", "*.png",
        "--nonce", "once", "--json",
        stdin=code.encode(), env={"B": "2"},
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert (done.code, found["stdout"]) == (0, "1 2 data\n")
    assert [row["path"] for row in found["outputs"]] == ["x.png"]


def test_an_archive_is_unpacked_there(sandrun: Command) -> None:
    (sandrun.home / "p.tgz").write_bytes(targz({"main.py": b"import a", "a.py": b"print('a')"}))
    assert sandrun("run", "p.tgz")[:2] == (0, b"a\n")


def test_a_file_without_an_extension_runs_as_its_first_line_says(sandrun: Command) -> None:
    (sandrun.home / "tool").write_text("#!/usr/bin/env bash\necho ${BASH_VERSION:+yes}")
    assert sandrun("run", "tool")[:2] == (0, b"yes\n")


# ---- being interrupted


def test_ctrl_c_cancels_the_job(server: Server, sandrun: Command) -> None:
    (sandrun.home / "loop.py").write_text(ENDLESS)
    terminal = sandrun.terminal("run", "loop.py")
    terminal.wait_for(b"begun\n")
    terminal.type(b"\x03")
    done = terminal.end()
    assert done[:2] == (130, b"begun\n")
    assert b"cancelling job-" in done.stderr and done.stderr.endswith(b"sandrun: cancelled\n")
    assert eventually(lambda: is_idle(server), 10)


def test_sigterm_cancels_it_too(server: Server, sandrun: Command) -> None:
    (sandrun.home / "loop.py").write_text(ENDLESS)
    with sandrun.start("run", "loop.py", "--rm") as process:
        assert process.stdout and process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 143
    assert stderr.endswith(b"sandrun: cancelled, and deleted\n")
    assert eventually(lambda: is_idle(server), 10)


def test_a_job_whose_answer_is_on_its_way_is_cancelled_too(
    server: Server, sandrun: Command
) -> None:
    (sandrun.home / "loop.py").write_text(ENDLESS)

    def cut(number: int, head: bytes) -> None:
        if b"/submit" in head:
            terminal.type(b"\x03")

    with Proxy(server.port, cut) as proxy:
        terminal = sandrun.terminal("run", "loop.py", "-s", proxy.url)
        done = terminal.end()
    assert done[:2] == (130, b"") and done.stderr.endswith(b"sandrun: cancelled\n")
    assert eventually(lambda: is_idle(server), 10)


@pytest.mark.parametrize("size", [8, 20 << 20], ids=["unanswered", "untaken"])
def test_ctrl_c_leaves_a_server_that_is_deaf(sandrun: Command, size: int) -> None:
    (sandrun.home / "main.py").write_bytes(os.urandom(size))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        terminal = sandrun.terminal("run", "main.py", "-s", url)
        client, _ = deaf.accept()
        with client:
            assert client.recv(100)
            terminal.type(b"\x03")
            began = time.monotonic()
            assert terminal.end()[:2] == (130, b"")
        assert time.monotonic() - began < 10


def test_the_second_ctrl_c_leaves_at_once(server: Server, sandrun: Command) -> None:
    """Also from a server that does not answer."""
    (sandrun.home / "loop.py").write_text(ENDLESS)

    def cut(number: int, head: bytes) -> int | None:
        if b"/cancel" in head:
            asked.append(number)
            eventually(lambda: terminal.process.poll() is not None, 20)
        return None

    asked: list[int] = []
    with Proxy(server.port, cut) as proxy:
        terminal = sandrun.terminal("run", "loop.py", "-s", proxy.url)
        terminal.wait_for(b"begun\n")
        terminal.type(b"\x03")
        assert eventually(lambda: bool(asked), 20)
        assert terminal.process.poll() is None
        terminal.type(b"\x03")
        assert terminal.end()[:2] == (130, b"begun\n")
    assert eventually(lambda: is_idle(server), 10)


def test_a_reader_that_leaves_ends_it_quietly(server: Server, sandrun: Command) -> None:
    code = "while True: print('x' * 1000)"
    (sandrun.home / "flood.py").write_text(code)
    words = " ".join(sandrun.words("run", "flood.py"))
    done = subprocess.run(
        ["bash", "-c", f"{words} | head -c 10; echo $PIPESTATUS"],
        capture_output=True, cwd=sandrun.home, env=sandrun.env, timeout=30,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (b"xxxxxxxxxx141\n", b"")
    assert eventually(lambda: is_idle(server), 10)


def test_an_output_that_cannot_be_written_is_125(server: Server, sandrun: Command) -> None:
    words = " ".join(sandrun.words("run", "-"))
    done = subprocess.run(
        ["bash", "-c", f"echo 'while True: print(1)' | {words} > /dev/full"],
        capture_output=True, cwd=sandrun.home, env=sandrun.env, timeout=30,
    )  # fmt: skip
    assert done.returncode == 125
    assert done.stderr == b"sandrun: Standard output cannot be written: No space left on device.\n"
    assert eventually(lambda: is_idle(server), 10)


def test_a_closed_stream_is_no_file_of_ours(sandrun: Command) -> None:
    words = " ".join(sandrun.words("run", "-"))
    done = subprocess.run(
        ["bash", "-c", f"echo 'print(1)' | {words} >&-"],
        capture_output=True, cwd=sandrun.home, env=sandrun.env, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    code = (
        "import os\nfrom sandrun.__main__ import _have_streams as have\nhave()\n"
        "os.write(2, os.readlink('/proc/self/fd/1').encode())"
    )
    done = subprocess.run(
        ["bash", "-c", '"$@" >&-', "bash", sys.executable, "-I", "-c", code], capture_output=True
    )
    assert done.stderr == b"/dev/null"


# ---- what a terminal shows


def test_the_status_line_is_gone_before_the_first_byte(sandrun: Command) -> None:
    (sandrun.home / "main.py").write_text(
        "import sys, time\ntime.sleep(1.2)\nprint('err', file=sys.stderr, flush=True)\n"
        "time.sleep(1.2)\nprint('out')"
    )
    done = sandrun.terminal("run", "main.py").end()
    before, _, after = done.stderr.partition(b"err\n")
    assert before.endswith(ERASE) and b"Running" in before and b"Ctrl-C cancels" in before
    assert after.startswith(b"sandrun: finished in 2.") and after.count(b"\n") == 1


def test_quiet_says_nothing_on_a_terminal_either(sandrun: Command) -> None:
    (sandrun.home / "main.py").write_text("print(1)")
    assert sandrun.terminal("run", "main.py", "-q").end() == (0, b"1\n", b"")


def test_a_large_folder_is_sent_under_a_bar_that_moves(sandrun: Command) -> None:
    folder = sandrun.home / "large"
    folder.mkdir()
    for number in range(999):
        (folder / f"{number}.bin").write_bytes(os.urandom(50_000))
    (folder / "main.py").write_text(
        "import os\nnames = os.listdir('.')\n"
        "print(len(names), sum(map(os.path.getsize, names)) // 1_000_000)"
    )
    done = sandrun.terminal("run", "large").end()
    assert done[:2] == (0, b"1000 49\n"), done
    assert b"sandrun: 1,000 files, 50 MB\n" in done.stderr
    bars = [part for part in done.stderr.split(ERASE) if part.startswith(b"Uploading [")]
    filled = [bar.count(b"#") for bar in bars]
    assert len(set(filled)) > 2 and filled == sorted(filled), bars
    assert bars[-1].split(b"]")[0].endswith(b"#")


def test_what_a_job_calls_its_files_does_nothing_to_the_terminal(sandrun: Command) -> None:
    (sandrun.home / "main.py").write_text("open('a\\x1b[31mb', 'w')")
    done = sandrun.terminal("run", "main.py").end()
    assert b"\x1b[31m" not in done.stderr
    assert b"it made a\\x1b[31mb (0 B): sandrun get job-" in done.stderr


# ---- what comes of it


def test_outputs_are_saved_below_the_folder_and_nowhere_else(sandrun: Command) -> None:
    code = b"import os\nos.makedirs('d/e')\nopen('d/e/x', 'w').write('new')\nopen('y', 'w')"
    assert sandrun("run", "-", "-o", "out/deep", stdin=code) == (0, b"", b"")
    assert (sandrun.home / "out/deep/d/e/x").read_text() == "new"
    elsewhere = sandrun.home / "elsewhere"
    (elsewhere / "e").mkdir(parents=True)
    (elsewhere / "e" / "x").write_text("kept")
    for where, link in (("one", "d"), ("two", "d/e"), ("three", "d/e/x")):
        path = sandrun.home / where / link
        path.parent.mkdir(parents=True)
        path.symlink_to(elsewhere / link[2:])
        done = sandrun("run", "-", "-o", where, stdin=code)
        assert done.code == 125 and "cannot be written" in done.said, done
    assert (elsewhere / "e" / "x").read_text() == "kept"


def test_json_is_one_object_with_everything(sandrun: Command) -> None:
    code = b"import os, sys\nos.write(1, b'\\xff')\nopen('x', 'w')\nsys.exit(3)"
    done = sandrun("run", "-", "--json", "-o", "out", stdin=code)
    found = json.loads(done.stdout)
    assert (done.code, done.stderr) == (3, b"")
    assert (found["exit_code"], found["reason"], found["ok"]) == (3, "exit", False)
    assert (found["stdout"], found["stdout_base64"], found["stderr"]) == ("\ufffd", "/w==", "")
    assert found["saved"] == ["out/x"]


def test_a_result_is_verified_when_asked(
    server: Server, sandrun: Command, worker: str, key: str
) -> None:
    code = b"print(1); open('x', 'w').write('x')"
    good = sandrun("run", "-", "--verify", "--key", worker, "--json", stdin=code)
    assert good.code == 0 and json.loads(good.stdout)["verified"] == worker
    other = "A" * 43 + "="
    bad = sandrun("run", "-", "--verify", "--key", other, stdin=code)
    assert (bad.code, bad.stdout) == (125, b"1\n") and bad.said.startswith("sandrun: ")
    assert "--key" in sandrun("run", "-", "--verify", stdin=code).said


def test_rm_has_it_forgotten(server: Server, sandrun: Command) -> None:
    done = sandrun("run", "-", "--rm", "--json", stdin=b"print(1)")
    status, _, _ = server.request("GET", f"/status/{json.loads(done.stdout)['job_id']}")
    assert (done.code, status) == (0, 404)
    assert not list((sandrun.home / "runtime/sandrun").iterdir())


def test_timestamps_stand_before_each_line(sandrun: Command) -> None:
    code = b"import time\nprint('a\\nb', flush=True)\ntime.sleep(0.3)\nprint('c', end='')"
    lines = sandrun("run", "-", "--timestamps", stdin=code).text.splitlines()
    assert [line.split()[1] for line in lines] == ["a", "b", "c"]
    times = [float(line.split()[0]) for line in lines]
    assert times[2] - times[0] > 0.2


# ---- what is not sent


@pytest.fixture
def project(sandrun: Command) -> Iterator[Path]:
    folder = sandrun.home / "project"
    folder.mkdir()
    for name in ("main.py", "a.log", "b.log", ".env"):
        (folder / name).write_text("print(sorted(__import__('os').listdir('.')))")
    (folder / ".gitignore").write_text("*.log")
    yield folder


def test_secrets_are_withheld_and_said_so_everywhere(sandrun: Command, project: Path) -> None:
    done = sandrun("run", project, "-q")
    assert done[:2] == (0, b"['.gitignore', 'main.py']\n")
    assert done.said.startswith("sandrun: not sent, as it looks like a secret: .env (")
    assert done.said.count("\n") == 1
    shown = sandrun.terminal("run", project).end()
    assert b"sandrun: 2 files, 49 B (2 ignored, .env withheld)\n" in shown.stderr


def test_a_dry_run_sends_nothing(sandrun: Command, project: Path) -> None:
    done = sandrun("run", project, "--dry-run", "-s", "http://127.0.0.1:1")
    assert done.code == 0
    assert done.text.splitlines()[1:] == [
        "    44 B  main.py", "2 files, 49 B (2 ignored, .env withheld)"
    ]  # fmt: skip
    found = json.loads(sandrun("run", project, "--dry-run", "--json", "-t", "2m").stdout)
    assert (found["withheld"], found["manifest"]) == ([".env"], {"timeout": 120})


# ---- what a program says of itself


def test_a_python_program_says_how_it_runs(sandrun: Command) -> None:
    (sandrun.home / "main.py").write_text(
        "# /// script\n# dependencies = ['numpy']\n# [tool.sandrun]\n# timeout = 1\n"
        "# args = ['a', 'b']\n# env = {X = 'x', Y = 'y'}\n# ///\n"
        "import os, sys\nprint(sys.argv[1:], os.environ['X'], os.environ['Y'], flush=True)\n"
        "while 'go' not in sys.argv: pass"
    )
    done = sandrun("run", "main.py", "--env", "Y=z")
    assert done[:2] == (124, b"['a', 'b'] x z\n")
    note = "sandrun: the program names dependencies (numpy); the server installs none\n"
    assert done.said.startswith(note)
    assert sandrun("run", "main.py", "-q", "--", "go")[:2] == (0, b"['go'] x y\n")


# ---- what is wrong


@pytest.mark.parametrize(
    "words, said",
    [
        (("run",), "Nothing to run: name a FILE, a folder (. is this one), an archive, or - for "
                   "code on standard input (to run what is piped into this: sandrun run -)."),
        (("run", "nix.py"), "There is no nix.py."),
        (("run", "x.py", "a"), "Unrecognized arguments: a. What the program is to get goes behind "
                               "--. See sandrun run --help."),
        (("run", "-", "--stdin", "-"), "Standard input cannot be both the code and what the "
                                       "program reads."),
        (("run", "-"), "There is no code on standard input."),
        (("run", "x.py", "-t", "soon"), "Argument -t/--timeout: 'soon' is not a time like 90s or "
                                        "2m. See sandrun run --help."),
        (("run", "x.py", "-m", "0.3M"), "Argument -m/--memory: '0.3M' is no whole number of "
                                        "megabytes. See sandrun run --help."),
        (("run", "x.py", "--env", "NIX"), "--env NIX: there is no such variable here; --env "
                                          "NIX=VALUE."),
        (("run", "x.py", "-f", "nix"), "--file nix: nix is no file."),
        (("run", "x.py", "-t", "9000"), None),
        (("run", "x.py", "-s", "[::1"), "'[::1' is no address of a server: Invalid IPv6 URL"),
        (("run", "x.py", "-s", "http://127.0.0.1:1"), "Cannot reach 127.0.0.1:1: Connection "
                                                      "refused"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_125_and_a_sentence(
    sandrun: Command, words: tuple[str, ...], said: str | None
) -> None:
    (sandrun.home / "x.py").write_text("print(1)")
    done = sandrun(*words)
    assert (done.code, done.stdout) == (125, b"")
    assert done.said.startswith("sandrun: ") and done.said.count("\n") == 1
    if said:
        assert done.said == f"sandrun: {said}\n"
    as_json = sandrun(*words, "--json")
    assert (as_json.code, as_json.said) == (125, done.said)
    found = json.loads(as_json.stdout)
    assert found["reason"] and found["error"].rstrip(".") in done.said
