"""docs/client.md does what it says: its Python runs, in its order, against a real server."""

import re
import subprocess
import sys
from pathlib import Path

from tests.journeys.server import REPOSITORY, Server

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_clients_document_runs(server: Server, worker: str, tmp_path: Path) -> None:
    blocks = _BLOCK.findall((REPOSITORY / "docs/client.md").read_text())
    assert len(blocks) == 6
    proof = f"print(proven('print(1)', {worker!r}).nonce)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "".join(blocks) + proof],
        cwd=tmp_path, env={"SANDRUN_SERVER": f"http://127.0.0.1:{server.port}"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done
    lines = done.stdout.splitlines()
    assert lines[0] == "42" and lines[1].startswith(" 0 0.")
    assert lines[2] == "[['a', 'b'], ['1', '2']]"
    assert (tmp_path / "results/n.txt").read_text() == lines[2]
    assert [line.split()[1:] for line in lines[3:5]] == [["stdout", "one"], ["stdout", "two"]]
    assert lines[5] == r"['0\n', '1\n', '2\n']"
    assert "Did you mean python?" in lines[6]
    assert lines[7:] == ["lab 7"]
