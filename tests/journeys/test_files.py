"""Files of a job while it runs, as frames for whoever watches, through the real server."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.journeys.server import Server
from tests.journeys.test_live import Job, curl

# Makes a file for every line that comes.
MAKES = "import os, sys\nfor line in sys.stdin: open(line.strip(), 'w').write('12345')"
ODD = (
    "import os, time\nfor name in (b'a\\nb', b'\\xff', b'x' * 255): open(name, 'w')\ntime.sleep(60)"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("--no-quotas")
    yield server
    assert server.end() == 0, server.banner


def send(job: Job, text: str) -> None:
    bearer = {"Authorization": f"Bearer {job.token}"}
    path = f"/jobs/{job.id}/stdin"
    assert asyncio.run(job.client.ask("POST", path, text.encode(), bearer)).status == 200


def told(frames: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The next frame about files, without its seq."""
    frame = next(one for one in frames if one["type"] == "files")
    del frame["seq"]
    return frame


def test_a_file_is_told_while_the_job_still_runs(server: Server) -> None:
    job = Job(server, MAKES, stdin_live=True)
    with job.watch(server) as watching, job.watch(server) as other:
        frames = watching.frames()
        send(job, "one.txt\n")
        one = {"path": "one.txt", "size": 5}
        expected = {"type": "files", "advisory": True, "files": [one], "more": 0}
        assert told(frames) == told(other.frames()) == expected
        send(job, "a.txt\n")
        assert told(frames)["files"] == [{"path": "a.txt", "size": 5}, one]
        assert job.state() == "running"
        for words in ("format=ndjson", "format=sse"):
            process = curl(server, f"HOST/logs/{job.id}?follow=1&{words}")
            assert process.stdout
            line = next(line for line in process.stdout if b"advisory" in line)
            assert json.loads(line.removeprefix(b"data: "))["files"][1] == one
            process.terminate()
            process.communicate()
        kinds = []
        job.delete()
        kinds = [frame["type"] for frame in frames]
    assert "files" not in kinds and kinds[-1] == "gone"


def test_nothing_is_told_again_that_has_not_changed(server: Server) -> None:
    job = Job(server, "open('a', 'w')\nimport time\ntime.sleep(4)")
    with job.watch(server) as watching:
        kinds = [frame["type"] for frame in watching.frames()]
    assert kinds.count("files") == 1 and kinds.count("metrics") >= 5, kinds


def test_odd_names_are_shown_as_those_of_outputs(server: Server) -> None:
    job = Job(server, ODD)
    with job.watch(server) as watching:
        paths = {file["path"] for file in told(watching.frames())["files"]}
    assert paths == {"a\nb", "\\xff", "x" * 255}
    assert job.delete() == 200


def test_whoever_reads_text_is_told_of_no_file(server: Server) -> None:
    job = Job(server, "open('made.txt', 'w')\nimport time\ntime.sleep(2)\nprint('end')")
    out, _ = curl(server, f"HOST/logs/{job.id}?follow=1").communicate()
    with job.watch(server, None) as watching:
        words = "".join(watching.texts())
    assert out == b"end\n" and "made.txt" not in words
