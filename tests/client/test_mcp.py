"""The MCP server, asked by the SDK's own client over both transports, in front of a real server."""

import base64
import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("mcp", reason="the MCP SDK is not installed")

from mcp import StdioServerParameters
from mcp_types import BlobResourceContents, TextResourceContents

from sandrun.client import AsyncClient
from sandrun.replies import MAX_CHARACTERS
from sandrun.tools import Tools, build
from tests.client.agent import COMMAND, Agent, connected, links, pictures, serving, text
from tests.journeys.server import REPOSITORY, Server

TOOLS = {
    "run_code", "run_project", "get_output", "read_log", "cancel_job",
    "execute_python", "execute_javascript", "execute_bash", "check_job_status", "get_job_logs",
}  # fmt: skip
DRAWS = """
import struct, zlib
def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
def png(width, height):
    rows = b''.join(b'\\0' + bytes([y, 0, 255 - y]) * width for y in range(height))
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    body = chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
    return b'\\x89PNG\\r\\n\\x1a\\n' + head + body
open('plot.png', 'wb').write(png(16, 16))
open('wide.png', 'wb').write(png(9000, 1))
open('fake.png', 'wb').write(b'\\x89PNG fake')
open('a b\u00e9.csv', 'w').write('x,y\\n1,2\\n')
open('data.bin', 'wb').write(bytes(range(256)))
"""
HANDSHAKE: list[dict[str, Any]] = [
    {"method": "initialize", "id": 1, "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"}}},
    {"method": "notifications/initialized"},
]  # fmt: skip
SLEEPS = "import time; print('up', flush=True); time.sleep(100)"


@pytest.fixture(scope="module")
def served(url: str) -> Iterator[str]:
    with serving(url) as address:
        yield address


@pytest.fixture(scope="module")
def stdio(url: str) -> StdioServerParameters:
    return StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], "--server", url])


@pytest.fixture(scope="module", params=["stdio", "http", "http of 2025"])
def agent(
    request: pytest.FixtureRequest, stdio: StdioServerParameters, served: str
) -> Iterator[Agent]:
    mode = "auto" if request.param == "http" else "legacy"
    with connected(stdio if request.param == "stdio" else served, mode) as agent:
        yield agent


def job_of(result: Any) -> str:
    return str(result.structured_content["job_id"])


# ---- what there is


def test_every_tool_is_listed_with_a_short_description_and_what_it_may_do(agent: Agent) -> None:
    tools = {tool.name: tool for tool in agent.ask(agent.client.list_tools()).tools}
    assert tools.keys() == TOOLS
    for tool in tools.values():
        assert tool.description and len(tool.description) < 2000
        assert tool.annotations and tool.annotations.open_world_hint is False
        assert tool.annotations.destructive_hint is False
        assert "context" not in tool.input_schema["properties"]
        assert "call" not in tool.input_schema["properties"]
    asked = tools["run_code"].input_schema
    assert asked["required"] == ["language", "code"]
    assert {"files", "stdin", "args", "timeout_s"} < asked["properties"].keys()
    read_only = {
        name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint
    }
    assert read_only == {"get_output", "read_log", "check_job_status", "get_job_logs"}


# ---- running


def test_code_runs_and_everything_is_told(agent: Agent) -> None:
    result = agent.call("run_code", language="python", code="print('caf\u00e9 \u2713')")
    assert not result.is_error
    told = text(result)
    assert told.startswith("Finished in ") and "stdout:\ncaf\u00e9 \u2713\n" in told
    assert "stderr" not in told and "outputs" not in told
    structured = result.structured_content
    assert (structured["ok"], structured["exit_code"], structured["reason"]) == (True, 0, None)
    assert (structured["stdout"], structured["outputs"]) == ("caf\u00e9 \u2713\n", [])
    assert structured["job_id"] in told


@pytest.mark.parametrize(
    ("language", "code"),
    [("javascript", "console.log(6 * 7)"), ("bash", "echo $((6 * 7))"),
     ("c", '#include <stdio.h>\nint main(void) { printf("%d\\n", 6 * 7); }')],
)  # fmt: skip
def test_languages_have_their_usual_names(agent: Agent, language: str, code: str) -> None:
    assert "stdout:\n42\n" in agent.text("run_code", language=language, code=code)


def test_a_job_is_given_files_stdin_and_arguments(agent: Agent) -> None:
    code = (
        "import sys, pathlib\n"
        "print(sys.argv[1:], sys.stdin.read(), pathlib.Path('d/t.txt').read_text(),"
        " pathlib.Path('b').read_bytes())"
    )
    files = {"d/t.txt": "text", "b": {"base64": base64.b64encode(b"\0\xff").decode()}}
    result = agent.call(
        "run_code", language="python", code=code, files=files, stdin='{"is": "json"}', args=["a b"]
    )
    assert result.structured_content["stdout"] == (
        "['a b'] {\"is\": \"json\"} text b'\\x00\\xff'\n"
    )


def test_a_project_runs_from_its_entrypoint(agent: Agent) -> None:
    result = agent.call(
        "run_project",
        files={"src/go.py": "import words, sys; print(words.W, sys.argv[1], sys.stdin.read()); "
               "open('x.txt', 'w'); open('y.log', 'w')", "src/words.py": "W = 'hi'"},
        manifest={"entrypoint": "src/go.py", "interpreter": "python3", "args": ["you"],
                  "outputs": ["*.txt"], "timeout": 20, "stdin": "in"},
    )  # fmt: skip
    assert result.structured_content["stdout"] == "hi you in\n", result
    assert [output["path"] for output in result.structured_content["outputs"]] == ["x.txt"]


@pytest.mark.parametrize(
    ("code", "timeout", "exit_code", "reason", "says"),
    [
        ("import sys; sys.exit('wrong')", 20, 1, "exit", "Failed with exit code 1"),
        ("while True: pass", 1, None, "timeout", "Stopped at the time limit"),
        ("import os; os.kill(os.getpid(), 11)", 20, None, "signal", "Crashed: signal 11"),
    ],
)
def test_a_program_that_fails_is_no_error(
    agent: Agent, code: str, timeout: int, exit_code: int | None, reason: str, says: str
) -> None:
    result = agent.call("run_code", language="python", code=code, timeout_s=timeout)
    assert not result.is_error
    told = result.structured_content
    assert (told["ok"], told["exit_code"], told["reason"]) == (False, exit_code, reason)
    assert text(result).startswith(says)
    if reason == "exit":
        assert "stderr:\nwrong\n" in text(result)


def test_a_picture_is_shown_and_other_outputs_are_linked(agent: Agent) -> None:
    result = agent.call("run_code", language="python", code=DRAWS)
    [shown] = pictures(result)
    png = base64.b64decode(shown.data)
    assert shown.mime_type == "image/png" and png.startswith(b"\x89PNG\r\n\x1a\n")
    assert {link.name for link in links(result)} == {
        "fake.png", "wide.png", "a b\u00e9.csv", "data.bin",
    }  # fmt: skip
    assert "plot.png (image/png" in text(result) and "shown below" in text(result)
    assert shown.data[:40] not in json.dumps(result.structured_content)
    job = job_of(result)
    csv = next(link for link in links(result) if link.name.endswith(".csv"))
    [content] = agent.ask(agent.client.read_resource(str(csv.uri))).contents
    assert isinstance(content, BlobResourceContents | TextResourceContents)
    data = (
        content.text.encode()
        if isinstance(content, TextResourceContents)
        else base64.b64decode(content.blob)
    )
    assert (data, csv.size) == (b"x,y\n1,2\n", 8)
    again = agent.call("get_output", job_id=job, path="plot.png")
    assert base64.b64decode(pictures(again)[0].data) == png


def test_an_output_is_read_in_pieces_and_bytes_are_only_described(agent: Agent) -> None:
    code = "open('t', 'w').write('\u00e9' * 6000); open('b', 'wb').write(bytes(range(256)))"
    job = job_of(agent.call("run_code", language="python", code=code))
    first = agent.call("get_output", job_id=job, path="t", max_bytes=7001).structured_content
    rest = agent.call("get_output", job_id=job, path="t", offset=first["next_offset"])
    assert (first["size_bytes"], first["text"]) == (12_000, "\u00e9" * 3500)
    assert rest.structured_content["text"] == "\u00e9" * 2499
    assert rest.structured_content["next_offset"] is None
    binary = agent.call("get_output", job_id=job, path="b")
    assert not binary.is_error and "256 bytes" in text(binary) and len(links(binary)) == 1
    missing = agent.call("get_output", job_id=job, path="none")
    assert missing.is_error and "'b', 't'" in text(missing)


def test_long_text_is_cut_and_the_rest_can_be_read(agent: Agent) -> None:
    code = (
        "import sys; print(''.join(f'{n:07} ' for n in range(10_000)))\n"
        "sys.stderr.write('w' * 30_000)"
    )
    result = agent.call("run_code", language="python", code=code)
    told = text(result)
    assert 7000 < len(told) <= MAX_CHARACTERS
    found = re.search(r"… ([\d,]+) characters cut, read_log\((.*), offset=(\d+)\) …", told)
    assert found and "0000000 0000001" in told and "0009999 \n" in told
    assert told.count("characters cut") == 2 and 'stream="stderr"' in told
    job, offset, whole = job_of(result), int(found[3]), ""
    head = told.partition("stdout:\n")[2].partition("\n… ")[0]
    assert len(head) == offset
    assert int(found[1].replace(",", "")) > 70_000
    while offset is not None:
        part = agent.call("read_log", job_id=job, offset=offset, limit=20_000).structured_content
        whole, offset = whole + part["text"], part["next_offset"]
    assert whole == "".join(f"{n:07} " for n in range(10_000))[int(found[3]) :] + "\n"
    end = agent.call("read_log", job_id=job, offset=-3, stream="stderr").structured_content
    assert (end["text"], end["total"], end["offset"]) == ("www", 30_000, 29_997)


def test_of_a_flood_both_ends_are_told_and_that_the_middle_is_lost(agent: Agent) -> None:
    code = "print('begin'); print('x' * 12_000_000); print('end')"
    result = agent.call("run_code", language="python", code=code)
    assert not result.is_error and result.structured_content["limits_hit"] == ["log"]
    assert "stdout:\nbegin\nxxx" in text(result) and "xxx\nend\n" in text(result)
    assert "the middle is lost" in text(result) and len(text(result)) <= MAX_CHARACTERS
    end = agent.call("read_log", job_id=job_of(result), offset=-4).structured_content
    assert end["text"] == "end\n" and end["total"] < 11_000_000


# ---- while it runs


def test_progress_comes_with_the_last_line_and_the_log_can_be_read_meanwhile(agent: Agent) -> None:
    told: queue.Queue[str] = queue.Queue()
    code = (
        "import time\nfor n in range(8): print('line', n, flush=True); time.sleep(0.1)\n"
        "time.sleep(30)"
    )
    call = agent.begin("run_code", told.put, language="python", code=code)
    messages = [""]
    while "running" not in messages[-1] or "line 7" not in messages[-1]:
        messages.append(told.get(timeout=20))
    assert len(messages) > 2
    since = time.monotonic()
    told.get(timeout=20)  # nothing is printed any more
    assert time.monotonic() - since < 5
    job = re.findall(r"\((job-\w+)\)", messages[-1])[0]
    log = agent.call("read_log", job_id=job, offset=0).structured_content
    assert log["status"] == "running" and log["text"].startswith("line 0\nline 1\n")
    assert not agent.call("cancel_job", job_id=job).is_error
    result = call.result(20)
    assert not result.is_error and result.structured_content["reason"] == "cancelled"
    assert agent.call("cancel_job", job_id="job-another").is_error


def test_who_takes_the_call_back_ends_the_job(agent: Agent, server: Server) -> None:
    told: queue.Queue[str] = queue.Queue()
    call = agent.begin("run_code", told.put, language="python", code=SLEEPS)
    while not (found := re.search(r"running.*\((job-\w+)\): up", told.get(timeout=20))):
        pass
    call.cancel()
    with pytest.raises(CancelledError):
        call.result(20)
    assert server.finish(found[1], 20)["reason"] == "cancelled"


def test_a_client_that_goes_away_takes_its_jobs_along(
    stdio: StdioServerParameters, server: Server
) -> None:
    told: queue.Queue[str] = queue.Queue()
    with connected(stdio, "legacy") as agent:
        agent.begin("run_code", told.put, language="python", code=SLEEPS)
        while not (found := re.search(r"running.*\((job-\w+)\): up", told.get(timeout=20))):
            pass
    assert server.finish(found[1], 20)["reason"] == "cancelled"


@pytest.mark.parametrize(
    ("words", "number"),
    [([], signal.SIGINT), ([], signal.SIGTERM), (["--http", "127.0.0.1:0"], signal.SIGTERM)],
)
def test_a_server_that_is_ended_takes_its_jobs_along(
    url: str, server: Server, words: list[str], number: signal.Signals
) -> None:
    with subprocess.Popen(
        [*COMMAND, *words, "--server", url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        called = {
            "name": "run_code",
            "arguments": {"language": "python", "code": SLEEPS},
            "_meta": {"progressToken": 1},
        }
        asked = [*HANDSHAKE, {"method": "tools/call", "id": 2, "params": called}]
        if words:
            lines = asked_over_http(process.stderr.readline().split()[-1], asked)
        else:
            process.stdin.write(as_lines(asked))
            process.stdin.flush()
            lines = process.stdout
        job = next(found[1] for line in lines if (found := re.search(r"\((job-\w+)\): up", line)))
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert "Traceback" not in process.stderr.read()
    assert server.finish(job, 20)["reason"] == "cancelled"


def as_lines(asked: list[dict[str, Any]]) -> str:
    return "".join(json.dumps({"jsonrpc": "2.0", **one}) + "\n" for one in asked)


def asked_over_http(address: str, asked: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of the last answer, as they come."""
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    for one in asked:
        body = as_lines([one]).encode()
        with urlopen(Request(address, body, headers), timeout=20) as answer:
            if session := answer.headers["mcp-session-id"]:
                headers["mcp-session-id"] = session
            if one is asked[-1]:
                for line in answer:
                    yield line.decode()


# ---- what is an error


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("run_code", {"language": "pyhton", "code": "1"}, "python3"),
        ("run_code", {"language": "python"}, "code"),
        ("run_code", {"language": "python", "code": "1", "files": {"b": {"base64": "?"}}}, "'b'"),
        ("run_code", {"language": "python", "code": "1", "timeout_s": 100_000}, "timeout"),
        ("run_project", {"files": {}}, "no files"),
        ("run_project", {"files": {"main.py": "1"}, "manifest": {"timout": 1}}, "'timout'"),
        ("run_project", {"files": {"main.py": "1"}, "manifest": {"path": "/etc"}}, "'path'"),
        ("read_log", {"job_id": "job-none"}, "Job not found"),
        ("get_output", {"job_id": "../stats", "path": "x"}, "Not found"),
        ("check_job_status", {"job_id": "job-none"}, "Error: Job not found"),
        ("get_job_logs", {"job_id": "job-none"}, "Error: Job not found"),
    ],
)
def test_what_cannot_be_done_is_an_error_with_a_sentence(
    agent: Agent, tool: str, arguments: dict[str, Any], says: str
) -> None:
    result = agent.call(tool, **arguments)
    assert result.is_error and says in text(result), result
    assert "Traceback" not in text(result)


def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        client = AsyncClient(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with connected(build(Tools(client))) as agent:
            result = agent.call("run_code", language="python", code="print(1)")
            old = agent.call("execute_python", code="print(1)")
    assert result.is_error and "Cannot reach 127.0.0.1" in text(result)
    assert old.is_error and text(old).startswith("Error: Cannot reach")


def test_who_is_at_his_limit_is_told_when_to_come() -> None:
    server = Server(env={"SANDRUN_JOBS_PER_HOUR": 1})
    try:
        client = AsyncClient(f"http://127.0.0.1:{server.port}", patience=20)
        with connected(build(Tools(client))) as agent:
            assert not agent.call("run_code", language="python", code="1").is_error
            result = agent.call("run_code", language="python", code="1")
    finally:
        server.end()
    told = result.structured_content
    assert result.is_error and (told["reason"], told["retry_after"] > 20) == ("hourly_jobs", True)
    assert f"{told['retry_after']:g} s" in text(result)


# ---- the earlier server's tools


def test_the_earlier_tools_reply_as_they_did(agent: Agent) -> None:
    said = agent.text("execute_python", code="import sys; print(1); print(2, file=sys.stderr)")
    assert re.fullmatch(
        r"Status: completed\n\nOutput:\n1\n\n\nErrors:\n2\n\n"
        r"\nMetrics: CPU=\d+\.\d{3}s, Memory=\d+MB",
        said,
    ), said
    assert agent.text("execute_javascript", code="console.log(1)").startswith(
        "Status: completed\n\nOutput:\n1\n\n\nMetrics: CPU="
    )
    assert agent.text("execute_bash", script="echo 1; exit 3") == "Status: failed\n\nOutput:\n1\n\n"


def test_an_earlier_tool_that_does_not_wait_names_the_job(agent: Agent, server: Server) -> None:
    said = agent.text("execute_python", code="print(1)", wait=False)
    found = re.fullmatch(
        r"Job submitted: (job-\w+)\nUse check_job_status to monitor progress\.", said
    )
    assert found, said
    server.finish(found[1])
    status = agent.text("check_job_status", job_id=found[1])
    assert re.fullmatch(
        rf"Job {found[1]}:\nStatus: completed\nQueue position: 0\nCPU: \S+s\nMemory: \d+MB\n",
        status,
    ), status
    logs = agent.text("get_job_logs", job_id=found[1])
    assert logs == f"Logs for job {found[1]}:\n\nSTDOUT:\n1\n\n"


# ---- the command


def run(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL, **more,
    )  # fmt: skip


def test_stdout_carries_nothing_but_mcp(url: str) -> None:
    asked = [
        *HANDSHAKE,
        {"method": "tools/call", "id": 2, "params": {
            "name": "run_code", "arguments": {"language": "python", "code": "print('x\\n' * 9)"}}},
        {"method": "nonsense", "id": 3},
    ]  # fmt: skip
    with subprocess.Popen(
        [*COMMAND, "--server", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(as_lines(asked))
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(10) == 0
    assert {answer["id"] for answer in answers} == {1, 2, 3}
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--htpp", "1"], "unrecognized arguments"),
        (["--http", "localhost"], "HOST:PORT"),
        (["--http", "192.0.2.1:1"], "cannot listen"),
        (["--server", "ftp://x"], "no address of a server"),
    ],
)
def test_what_cannot_be_served_ends_with_125_and_a_sentence(words: list[str], says: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (125, ""), done
    assert says in done.stderr and "Traceback" not in done.stderr, done


def test_without_the_sdk_it_says_how_to_get_it_and_otherwise_loads_it_late() -> None:
    lacking = (
        "import sys; sys.modules['mcp'] = None; from sandrun.mcp import main; sys.exit(main([]))"
    )
    done = subprocess.run([sys.executable, "-c", lacking], capture_output=True, text=True)
    assert done.returncode == 125 and "pip install 'sandrun-server[mcp]'" in done.stderr, done
    late = "import sys, sandrun.mcp, sandrun.client; print('mcp' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", late], text=True) == "False\n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:{port}"}, 421),
        ({"Host": "127.0.0.1:{port}", "Origin": "http://evil.example"}, 403),
        ({"Host": "box.example:{port}"}, 400),  # is let in, and asks for no session
    ],
)
def test_a_web_page_cannot_reach_the_tools(
    served: str, headers: dict[str, str], status: int
) -> None:
    port = served.split(":")[2].split("/")[0]
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    named = {name: value.format(port=port) for name, value in headers.items()}
    asked = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    connection.request("POST", "/mcp", body, {**asked, **named})
    assert connection.getresponse().status == status
    connection.close()


def test_the_configuration_in_the_documents_starts_a_server(url: str) -> None:
    document = (REPOSITORY / "docs/mcp.md").read_text()
    [block] = re.findall(r"```json\n(.*?)```", document, re.DOTALL)
    [(name, named)] = json.loads(block)["mcpServers"].items()
    assert name == "sandrun" and named["command"] == "sandrun"
    assert named["env"].keys() == {"SANDRUN_SERVER"}
    found = Path(sys.executable).with_name("sandrun")
    parameters = StdioServerParameters(
        command=os.fspath(found), args=named["args"], env={"SANDRUN_SERVER": url}
    )
    with connected(parameters) as agent:
        assert "stdout:\n42\n" in agent.text("run_code", language="python", code="print(6 * 7)")
        tools = {tool.name for tool in agent.ask(agent.client.list_tools()).tools}
    assert tools == set(re.findall(r"^\| `(\w+)", document, re.MULTILINE))
