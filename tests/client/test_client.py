"""The SDK: what goes in, what comes out, and what is raised."""

import asyncio
import hashlib
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import sandrun
from sandrun.api import FOLLOWS
from sandrun.errors import NotVerified, refusal
from sandrun.result import result_of
from tests.client.cutting import Proxy
from tests.journeys.server import Server, eventually

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8ff"
    "9f010005010102a2d3a3a30000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[sandrun.Client]:
    with sandrun.Client(url) as client:
        yield client


# ---- light


def test_importing_sandrun_imports_no_http_library() -> None:
    code = (
        "import sys, sandrun; sandrun.Client; "
        "print({'h11', 'ssl', 'asyncio', 'http', 'django', 'nacl', 'pathspec'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n", done.stdout


def test_every_name_of_the_package_is_there() -> None:
    for name in sandrun.__all__:
        assert getattr(sandrun, name).__name__ == name
    with pytest.raises(AttributeError):
        sandrun.nothing  # noqa: B018


# ---- in and out


def test_run_is_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDRUN_SERVER", url)
    result = sandrun.run("print('hi')")
    assert (result.stdout, result.stderr, result.exit_code) == ("hi\n", "", 0)
    assert (result.ok, result.reason, str(result)) == (True, None, "hi\n")
    assert result.usage.cpu_seconds > 0 and result.usage.memory_peak_bytes > 1 << 20


def test_a_program_that_fails_is_a_result_and_check_raises_it(client: sandrun.Client) -> None:
    code = "import sys; print('out'); print('why', file=sys.stderr); sys.exit(3)"
    result = client.run(code)
    assert (result.ok, result.exit_code, result.reason) == (False, 3, "exit")
    assert (result.stdout, result.stderr) == ("out\n", "why\n")
    with pytest.raises(sandrun.JobFailed, match="failed with exit code 3: why") as raised:
        client.run(code, check=True)
    assert raised.value.result.stdout == "out\n"


@pytest.mark.parametrize(
    ("code", "manifest", "reason", "told"),
    [
        ("while True: pass", {"timeout": 1}, "timeout", "stopped at the time limit"),
        ("x = b'x' * (1 << 30)", {"memory_mb": 32}, "memory", "out of memory, at 32 MB"),
        ("import os; os.kill(os.getpid(), 11)", {}, "signal", "crashed: signal 11"),
        ("while True: pass", {"cpu_seconds": 0.2}, "cpu", "CPU time is used up"),
    ],
)
def test_why_it_ended_is_in_the_result(
    client: sandrun.Client, code: str, manifest: dict[str, int], reason: str, told: str
) -> None:
    result = client.run(code, **manifest)  # type: ignore[arg-type]
    assert (result.ok, result.exit_code, result.reason) == (False, None, reason)
    assert told in result.told


def test_bytes_are_exact_both_ways(client: sandrun.Client) -> None:
    every = bytes(range(256)) * 3
    code = (
        "import sys, pathlib\n"
        "sys.stdout.buffer.write(pathlib.Path('in.bin').read_bytes() + sys.stdin.buffer.read())\n"
        "sys.stderr.buffer.write(b'\\xff'); pathlib.Path('out.bin').write_bytes(bytes(range(256)))"
    )
    result = client.run(code, files={"in.bin": every}, stdin=every)
    assert result.stdout_bytes == every * 2, result
    assert (result.stderr_bytes, result.stderr) == (b"\xff", "\ufffd")
    assert result.outputs["out.bin"].bytes == bytes(range(256))


def test_what_a_job_is_given(client: sandrun.Client, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("1,2\n")
    code = (
        "import os, sys\nprint(sys.argv[1:], os.environ['A'], end=' ')\n"
        "print(sys.stdin.read(), open('b/d').read(), end='')"
    )
    result = client.run(
        code, files={"b/d": tmp_path / "d.csv"}, args=["--n", "3"], env={"A": "é"}, stdin="in"
    )
    assert result.stdout == "['--n', '3'] é in 1,2\n"


@pytest.mark.parametrize("size", [100_000, 3_000_001])
def test_a_large_stdin_arrives_whole_while_the_job_runs(client: sandrun.Client, size: int) -> None:
    data = (b"line %d\n" * (size // 7))[:size]
    code = (
        "import sys, hashlib\nprint('begun', flush=True)\n"
        "print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    )
    result = client.run(code, stdin=data)
    assert result.stdout == f"begun\n{hashlib.sha256(data).hexdigest()}\n"


def test_whoever_waits_for_his_stdin_to_be_sent_has_it_sent(url: str) -> None:
    code = "import sys; print(len(sys.stdin.read()))"

    async def main() -> str:
        async with sandrun.AsyncClient(url) as client:
            job = await client.submit(code, stdin=b"x" * 400_000)
            await job.fed()
            return (await job.wait()).stdout

    assert asyncio.run(main()) == "400000\n"


def test_stdin_that_nobody_reads_keeps_nobody_waiting(client: sandrun.Client) -> None:
    assert client.run("print(1)", stdin=bytes(1 << 20)).stdout == "1\n"


def test_code_runs_as_its_interpreter_or_first_line_says(client: sandrun.Client) -> None:
    assert client.run("console.log(1)", interpreter="node").stdout == "1\n"
    assert (
        client.run('#include <stdio.h>\nint main() { puts("c"); }', interpreter="c").stdout == "c\n"
    )
    assert client.run("#!/usr/bin/env bash\necho ${BASH_VERSION:+yes}").stdout == "yes\n"
    assert client.run("#!/usr/bin/perl\nprint 1 . 2").stdout == "12"
    assert client.run(files={"x.sh": "echo $0"}).stdout == "./x.sh\n"


def test_a_folder_a_file_and_an_archive_are_paths(client: sandrun.Client, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / "deep").mkdir(parents=True)
    (folder / "main.py").write_text("import deep.a; open('made', 'w')")
    (folder / "deep" / "a.py").write_text("print('deep')")
    (folder / "tool").write_text("#!/bin/sh\necho tool")
    (folder / "tool").chmod(0o755)
    (folder / "use.py").write_text("import subprocess; subprocess.run(['./tool'], check=True)")
    first = client.run(path=folder)
    assert (first.stdout, set(first.outputs)) == ("deep\n", {"made"})
    assert client.run(path=folder).job_hash == first.job_hash
    assert client.run(path=folder, entrypoint="use.py").stdout == "tool\n"
    assert client.run(path=folder, files={"new.py": "print(2)"}, entrypoint="new.py").ok
    assert client.run(path=folder / "deep" / "a.py").stdout == "deep\n"
    subprocess.run(["tar", "czf", tmp_path / "p.tgz", "-C", folder, "."], check=True)
    assert client.run(path=tmp_path / "p.tgz").stdout == "deep\n"


def test_outputs_are_values_that_stay(client: sandrun.Client, tmp_path: Path) -> None:
    code = (
        "import json, os\nos.makedirs('d/e')\njson.dump({'a': 1}, open('d/e/x.json', 'w'))\n"
        f"open('p.png', 'wb').write({PNG!r})"
    )
    with client.submit(code) as job:
        result = job.wait()
    with pytest.raises(sandrun.JobNotFound):
        job.status()
    output = result.outputs["d/e/x.json"]
    assert (output.json(), output.text(), output.size) == ({"a": 1}, '{"a": 1}', 8)
    assert output.sha256 == hashlib.sha256(output.bytes).hexdigest()
    assert output.save(tmp_path) == str(tmp_path / "d/e/x.json")
    assert (tmp_path / "d/e/x.json").read_bytes() == output.bytes
    assert "image/png" in result._repr_mimebundle_()  # a notebook shows the picture
    assert result.outputs["p.png"].mime_type == "image/png"


def test_many_outputs_with_odd_names_all_come(client: sandrun.Client) -> None:
    code = (
        "for n in range(40): open(f'out {n} é%2e?#.txt', 'w').write(str(n))\n"
        "open(b'\\xff', 'w').write('odd')"
    )
    result = client.run(code)
    contents = {path: output.bytes for path, output in result.outputs.items()}
    expected = {f"out {n} é%2e?#.txt": b"%d" % n for n in range(40)}
    assert contents == {**expected, "\\xff": b"odd"}


def test_a_job_that_is_read_without_its_outputs_says_how_to_get_one(client: sandrun.Client) -> None:
    job = client.submit("open('a', 'w').write('x')")
    output = job.wait(download=False).outputs["a"]
    with pytest.raises(sandrun.SandrunError, match="was not downloaded"):
        output.bytes  # noqa: B018
    assert job.download("a") == b"x"


def test_a_part_of_an_output_and_what_was_printed_by_now_can_be_had(client: sandrun.Client) -> None:
    code = "import sys; print('héllo'); sys.stderr.write('x'); open('a', 'w').write('0123456789')"
    job = client.submit(code)
    job.wait(download=False)
    assert (job.log("stdout"), job.log("stderr")) == ("héllo\n".encode(), b"x")
    assert (job.download("a", 2, 3), job.download("a", 7), job.download("a")) == (
        b"234", b"789", b"0123456789",
    )  # fmt: skip
    assert job.outputs()[0]["path"] == "a"


# ---- live


def test_lines_come_while_the_job_runs_with_stream_and_time(client: sandrun.Client) -> None:
    code = (
        "import sys, time\nprint('one', flush=True)\nsys.stdin.read()\n"
        "print('two', file=sys.stderr, flush=True); time.sleep(0.2); print('thr', end='')"
    )
    job = client.submit(code, stdin=bytes(40_000))  # ends its stdin when we are already reading
    lines = list(job.logs())
    assert [(line.stream, line.text) for line in lines] == [
        ("stdout", "one"), ("stderr", "two"), ("stdout", "thr"),
    ]  # fmt: skip
    assert 0 <= lines[0].time <= lines[1].time < lines[2].time
    assert [line.text for line in job.logs(since=lines[0].seq)] == ["two", "thr"]


def test_whoever_comes_back_to_a_line_hears_those_after_it(client: sandrun.Client) -> None:
    job = client.submit("import os; os.write(1, 'a\\nbé\\n\\nc'.encode())")  # all in one frame
    lines = list(job.logs())
    assert [line.text for line in lines] == ["a", "bé", "", "c"]
    for number, line in enumerate(lines):
        assert list(job.logs(since=line.seq)) == lines[number + 1 :]


def test_a_reader_who_leaves_early_does_not_end_the_job(client: sandrun.Client) -> None:
    job = client.submit("import time\nfor n in range(30): print(n, flush=True); time.sleep(0.02)")
    for line in job.logs():
        assert line.text == "0"
        break
    assert len(job.wait().stdout.split()) == 30


def test_what_is_printed_is_heard_as_it_comes(client: sandrun.Client) -> None:
    heard: list[tuple[str, bytes]] = []
    result = client.run(
        "import sys; print(1); print(2, file=sys.stderr)",
        on_output=lambda stream, data: heard.append((stream, data)),
    )
    assert dict(heard) == {"stdout": b"1\n", "stderr": b"2\n"}
    assert result.stdout == "1\n"


def test_who_waits_no_longer_is_told_that_it_goes_on(client: sandrun.Client) -> None:
    with client.submit("import time; time.sleep(60)") as job:
        begun = time.monotonic()
        with pytest.raises(sandrun.WaitTimeout, match=r"not over after 0\.3 s; it goes on"):
            job.wait(timeout=0.3)
        assert time.monotonic() - begun < 5
        assert job.status()["status"] in ("queued", "running")


def test_a_job_can_be_cancelled_and_then_is_a_result(client: sandrun.Client) -> None:
    job = client.submit("print('here', flush=True)\nimport time; time.sleep(60)")
    assert next(job.logs()).text == "here"
    job.cancel()
    result = job.wait()
    assert (result.ok, result.reason, result.stdout) == (False, "cancelled", "here\n")


def test_a_log_of_more_than_is_kept_is_what_the_server_keeps_and_signs(
    client: sandrun.Client, worker: str
) -> None:
    result = client.run("for n in range(2_000_000): print('line', n)")
    assert result.limits_hit == ("log",) and len(result.stdout_bytes) <= 11 << 20
    assert result.stdout.startswith("line 0\n") and result.stdout.endswith("line 1999999\n")
    assert result.verify([worker]).stdout.dropped > 0


# ---- what is raised


def test_a_wrong_manifest_is_refused_with_the_place_and_a_word_that_helps(
    client: sandrun.Client,
) -> None:
    with pytest.raises(sandrun.InvalidJob, match="Did you mean python") as raised:
        client.run("1", interpreter="pyton")
    assert raised.value.status == 400
    assert raised.value.errors[0]["pointer"] == "/interpreter"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "Nothing to run"),
        ({"code": "1", "path": "."}, "Either code= or path="),
        ({"path": "/nowhere/x.py"}, "Cannot read '/nowhere/x.py': No such file"),
        ({"code": "1", "entrypoint": "a", "files": {"a": "2"}}, "two files named 'a'"),
    ],
)
def test_what_cannot_be_sent_is_told_before_anything_is(
    client: sandrun.Client, arguments: dict[str, str], sentence: str
) -> None:
    with pytest.raises(sandrun.SandrunError, match=sentence):
        client.submit(**arguments)  # type: ignore[arg-type]


def test_unknown_jobs_and_other_peoples_are_two_errors(client: sandrun.Client) -> None:
    for odd in ("job-none", "", "../..", "a/b?c", "é"):
        with pytest.raises(sandrun.JobNotFound):
            client.job(odd).status()
    job = client.submit("print(1)")
    with pytest.raises(sandrun.NotOwner):
        client.job(job.id).delete()
    with pytest.raises(sandrun.NotOwner):
        client.job(job.id, "wrong\r\nX: y").delete()
    assert client.job(job.id).wait().stdout == "1\n"


def test_a_deleted_job_is_not_found_in_the_middle_of_its_log(client: sandrun.Client) -> None:
    job = client.submit("print('here', flush=True)\nimport time; time.sleep(60)")
    lines = job.logs()
    assert next(lines).text == "here"
    job.delete()
    with pytest.raises(sandrun.JobNotFound, match="deleted"):
        list(lines)


def test_a_server_that_is_not_there_is_told_with_its_address() -> None:
    with sandrun.Client("http://127.0.0.1:9") as client:
        with pytest.raises(sandrun.ConnectionFailed, match=r"127\.0\.0\.1:9: Connection refused"):
            client.run("1")
    with pytest.raises(sandrun.SandrunError, match="is no address of a server"):
        sandrun.Client("ftp://x")


def test_something_that_is_not_sandrun_is_told_apart(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "-b", "127.0.0.1", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        port = process.stdout.readline().split(" port ")[1].split()[0]
        with sandrun.Client(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(sandrun.SandrunError, match="is it Sandrun"):
                client.info()
            with pytest.raises(sandrun.Refused, match="HTTP 501"):
                client.run("1")
    finally:
        process.kill()
        process.communicate()


def test_who_is_at_his_limit_is_told_when_to_come_or_waits() -> None:
    server = Server()  # with quotas: two jobs at once
    try:
        with sandrun.Client(f"http://127.0.0.1:{server.port}") as client:
            jobs = [client.submit("import time; time.sleep(1)") for _ in range(2)]
            with pytest.raises(sandrun.RateLimited) as raised:
                client.run("print(1)")
            assert (raised.value.status, raised.value.reason) == (429, "concurrent_jobs")
            assert raised.value.retry_after
            with sandrun.Client(client.server, patience=20) as patient:
                assert patient.run("print(1)").ok
            assert [job.wait().ok for job in jobs] == [True, True]
            assert client.stats()["your_quota"]["active_jobs"] == 0
            assert "python3" in client.info()["interpreters"]
    finally:
        assert server.end() == 0, server.banner


@pytest.mark.parametrize(
    "address",
    ["http://[::1", "http://a..b", "http://user:word@localhost", "http://h:99999", "http://"],
)
def test_an_address_that_is_none_is_told(address: str) -> None:
    with pytest.raises(sandrun.SandrunError), sandrun.Client(address) as client:
        client.info()


def test_errors_cross_between_processes() -> None:
    refused = refusal(429, {"error": "Too much", "reason": "cpu_quota", "retry_after": 3})
    again = pickle.loads(pickle.dumps(refused))
    assert (type(again), str(again), again.retry_after) == (sandrun.RateLimited, "Too much.", 3)
    for error in (
        NotVerified("job", "x"),
        sandrun.WaitTimeout("job-1", 2),
        sandrun.SandrunError("y"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))


class Stub:
    """A server that says to each request what it was told to say, and breaks off."""

    def __init__(self, *answers: bytes) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.asked = 0
        self._thread = threading.Thread(target=self._answer, args=answers)
        self._thread.start()

    def _answer(self, *answers: bytes) -> None:
        for answer in answers:
            with self._listening.accept()[0] as client:
                client.recv(65536)
                self.asked += 1
                client.sendall(answer)

    def end(self) -> None:
        self._listening.close()
        self._thread.join()


def said(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n", said(b"[[[[" * 100_000 + b"\n"), said(b"[]\n"),
        said(b'{"seq":1,"type":"end"}\n'),
        said(b'{"seq":1,"type":"stdout","t":1}\n'), said(b'{"seq":1,"type":[]}\n'),
        said(b'{"seq":1,"type":"end","result":{}}\n'),
    ],
)  # fmt: skip
def test_answers_that_mean_nothing_are_told_as_such(answer: bytes) -> None:
    stub = Stub(*[answer] * (FOLLOWS if answer.startswith(b"g") else 1))
    with sandrun.Client(stub.url) as client, pytest.raises(sandrun.SandrunError):
        client.job("job-1").wait()
    stub.end()


def test_a_log_goes_on_behind_a_proxy_that_stumbles() -> None:
    line = b'{"seq":2,"type":"stdout","t":0.1,"data":"a\\n"}\n{"seq":2,"type":"gone"}\n'
    stub = Stub(said(b"", "502 Bad Gateway"), said(line))
    with sandrun.Client(stub.url) as client:
        lines = client.job("job-1").logs()
        assert next(lines).text == "a"
        with pytest.raises(sandrun.JobNotFound):
            next(lines)
    stub.end()
    assert stub.asked == 2


def test_a_wait_ends_in_time_where_the_server_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with sandrun.Client(url) as client, pytest.raises(sandrun.WaitTimeout):
            client.job("job-1").wait(timeout=0.3)
        assert time.monotonic() - began < 5


def test_one_client_serves_two_event_loops(url: str) -> None:
    client = sandrun.AsyncClient(url)
    for _ in range(2):
        assert asyncio.run(client.run("print(1)")).stdout == "1\n"
        client.close()


# ---- connections that break

PRINTS = "for n in range(40_000): print('line', n)"
PRINTED = "".join(f"line {n}\n" for n in range(40_000))


def test_a_log_that_breaks_off_again_and_again_arrives_once_and_whole(server: Server) -> None:
    def cut(number: int, head: bytes) -> int | None:
        return 50_000 if b"/logs/" in head or b"/submit" in head else None

    with Proxy(server.port, cut) as proxy, sandrun.Client(proxy.url) as client:
        assert client.run(PRINTS).stdout == PRINTED
        assert sum(b"since=" in head for head in proxy.heads) > 5
        job = client.submit(PRINTS)
        assert "".join(f"{line}\n" for line in job.logs()) == PRINTED

        async def main() -> str:
            async with sandrun.AsyncClient(proxy.url) as client:
                return (await client.run(PRINTS)).stdout

        assert asyncio.run(main()) == PRINTED


def test_a_large_stdin_comes_whole_over_connections_that_break(server: Server) -> None:
    data = b"".join(b"%d\n" % n for n in range(60_000))
    code = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"

    def cut(number: int, head: bytes) -> int | None:
        """Some answers are lost, and each time the connection with them."""
        return (1500, 40)[number % 2] if b"/stdin" in head else None

    with Proxy(server.port, cut) as proxy, sandrun.Client(proxy.url) as client:
        assert client.run(code, stdin=data).stdout == f"{hashlib.sha256(data).hexdigest()}\n"
        assert sum(b"/stdin" in head for head in proxy.heads) > 4


def test_a_submission_whose_answer_was_lost_is_one_job(server: Server) -> None:
    with Proxy(server.port, lambda number, _: 0 if number == 0 else None) as proxy:
        with sandrun.Client(proxy.url) as client:
            result = client.run("print(1)")
            assert result.stdout == "1\n"
        posts = [head for head in proxy.heads if head.startswith(b"POST /submit")]
        assert len(posts) == 2
        keys = [head.partition(b"Idempotency-Key: ")[2].split(b"\r\n")[0] for head in posts]
        assert keys[0] == keys[1] != b""


def test_a_connection_that_the_server_has_closed_meanwhile_is_opened_anew(server: Server) -> None:
    with Proxy(server.port, lambda number, _: 1500 if number == 0 else None) as proxy:
        with sandrun.Client(proxy.url) as client:
            for _ in range(3):
                assert client.health()["status"] == "healthy"
            assert eventually(lambda: client.health()["status"] == "healthy", 5)
        assert 1 < len(proxy.heads) < 4


def test_an_upload_shows_how_far_it_is(client: sandrun.Client) -> None:
    seen: list[tuple[int, int]] = []
    data = hashlib.shake_128(b"").digest(8 << 20)
    code = "import os; print(os.stat('data').st_size)"
    result = client.run(code, files={"data": data}, on_upload=lambda *at: seen.append(at))
    assert result.stdout == f"{8 << 20}\n"
    assert len(seen) > 20 and seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 8 << 20
    seen.clear()
    client.run("1", on_upload=lambda *at: seen.append(at))
    assert len(seen) == 1 and seen[0][0] == seen[0][1]


# ---- proof


def test_a_result_proves_itself_and_an_altered_one_does_not(
    client: sandrun.Client, worker: str
) -> None:
    result = client.run("print(1); open('a', 'w').write('x')", nonce="n")
    receipt = result.verify([worker], nonce="n")
    assert receipt.job_id == result.job_id and receipt.worker == result.worker_id == worker
    with pytest.raises(NotVerified):
        result.verify([worker], nonce="another")
    altered = {"stdout_bytes": b"2\n", "stderr_bytes": b"x", "job_id": "job-x"}
    for name, value in {**altered, "status": {**result.status, "wall_time": 9}}.items():
        kept = getattr(result, name)
        object.__setattr__(result, name, value)
        with pytest.raises(NotVerified):
            result.verify([worker])
        object.__setattr__(result, name, kept)
    object.__setattr__(result.outputs["a"], "data", b"y")
    with pytest.raises(NotVerified, match="a has another content"):
        result.verify([worker])


def test_an_output_that_was_altered_on_its_way_is_no_result(client: sandrun.Client) -> None:
    result = client.run("open('a', 'w').write('x')")
    rows = [{**result.status["outputs"][0]}]
    url = rows[0]["download_url"]
    again = result_of(result.status, b"", b"", rows, {url: b"x"})
    assert again.outputs["a"].bytes == b"x"
    with pytest.raises(NotVerified, match="a was altered on its way"):
        result_of(result.status, b"", b"", rows, {url: b"y"})


def test_results_of_every_size_are_verified(client: sandrun.Client, worker: str) -> None:
    code = "for n in range(400): open(f'{n:0200}', 'w').write(str(n))"  # too many for one frame
    result = client.run(code)
    assert len(result.outputs) == 400 == len(result.verify([worker]).outputs)


# ---- asyncio, and who interrupts


def test_twenty_at_once_over_asyncio(url: str) -> None:
    async def main() -> list[str]:
        async with sandrun.AsyncClient(url) as client:
            results = await asyncio.gather(*(client.run(f"print({n})") for n in range(20)))
            return [result.stdout for result in results]

    assert asyncio.run(main()) == [f"{n}\n" for n in range(20)]


def test_async_jobs_have_lines_and_a_large_stdin(url: str) -> None:
    async def main() -> None:
        async with sandrun.AsyncClient(url) as client:
            code = "import sys; print(len(sys.stdin.read())); print(2)"
            async with await client.submit(code, stdin=b"x" * 500_000) as job:
                assert [line.text async for line in job.logs()] == ["500000", "2"]
            with pytest.raises(sandrun.JobNotFound):
                await job.status()

    asyncio.run(main())


def test_a_task_that_is_cancelled_cancels_its_job(url: str) -> None:
    async def main() -> None:
        async with sandrun.AsyncClient(url) as client:
            here = asyncio.Event()
            code = "print('here', flush=True)\nimport time; time.sleep(60)"
            task = asyncio.create_task(client.run(code, on_output=lambda *_: here.set()))
            await here.wait()
            assert (await client.stats())["system"]["active_jobs"] == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.stats())["system"]["active_jobs"] == 0

    asyncio.run(main())


def test_ctrl_c_cancels_the_job_that_is_run(client: sandrun.Client, url: str) -> None:
    code = (
        "import sandrun, sys, signal, os\n"
        "def stop(*_): os.kill(os.getpid(), signal.SIGINT)\n"
        "try: sandrun.run(\"print('here', flush=True)\\nimport time; time.sleep(60)\", "
        f"server={url!r}, on_output=stop)\n"
        "except KeyboardInterrupt: print('interrupted')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "interrupted\n"
    assert client.stats()["system"]["active_jobs"] == 0
