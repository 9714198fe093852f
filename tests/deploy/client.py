"""A client that needs nothing but Python: it runs a few jobs at a server and says what came back.

python3 -I client.py URL [--host NAME]    prints JSON; exit code 1 when anything is not as it should
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any

BOUNDARY = "------------------------sandrun"
OK = "import os; open('out.txt', 'w').write('42'); print('uid', os.getuid())"
HOG = "x = []\nwhile True: x.append(bytearray(1 << 20))"
SLEEP = "import time; print('begun', flush=True); time.sleep(120)"


class Client:
    """The public API at one address."""

    def __init__(self, url: str, host: str | None = None, context: Any = None) -> None:
        self.url = url.rstrip("/")
        self.headers = {"Host": host} if host else {}
        https = urllib.request.HTTPSHandler(context=context)
        self.open = urllib.request.build_opener(urllib.request.ProxyHandler({}), https).open

    def get(self, path: str) -> Any:
        body = self.ask(path)
        return json.loads(body)

    def ask(self, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        headers = {**self.headers, **({"Content-Type": kind} if kind else {})}
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        with self.open(request, timeout=90) as answer:
            return bytes(answer.read())

    def wait_until_ready(self, seconds: float = 60) -> Any:
        """/health, once somebody listens."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.get("/health")
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def start(self, code: str, padding: int = 0, **manifest: Any) -> str:
        """Submit one Python file; the id."""
        parts = [
            ('name="files"; filename="main.py"', code.encode()),
            ('name="manifest"', json.dumps(manifest).encode()),
        ]
        if padding:
            parts.append(('name="files"; filename="padding"', b"x" * padding))
        body = b"".join(
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode()
            + content
            + b"\r\n"
            for head, content in parts
        )
        body += f"--{BOUNDARY}--\r\n".encode()
        answer = self.ask("/submit", body, f"multipart/form-data; boundary={BOUNDARY}")
        return str(json.loads(answer)["job_id"])

    def run(self, code: str, padding: int = 0, **manifest: Any) -> dict[str, Any]:
        """/status of a job run to its end, with its stdout."""
        job = self.start(code, padding, **manifest)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            status: dict[str, Any] = self.get(f"/status/{job}?wait=10")
            if status["status"] in ("completed", "failed"):
                return {**status, "stdout": self.get(f"/logs/{job}")["stdout"], "id": job}
        raise TimeoutError(f"{job} did not end: {status}")


def check(client: Client) -> dict[str, Any]:
    """Facts about a server that works; raises AssertionError about one that does not."""
    health = client.wait_until_ready()
    good = client.run(OK, outputs=["out.txt"])
    assert (good["status"], good["stdout"]) == ("completed", "uid 1000\n"), good
    assert client.ask(f"/download/{good['id']}/out.txt") == b"42"
    hog = client.run(HOG, memory_mb=64)
    assert hog.get("reason") == "memory", hog
    late = client.run(SLEEP, timeout=1)
    assert late.get("reason") == "timeout", late
    return {"walls": health["sandbox"], "good": good, "memory": hog, "timeout": late}


if __name__ == "__main__":
    host = sys.argv[3] if sys.argv[2:3] == ["--host"] else None
    print(json.dumps(check(Client(sys.argv[1], host)), indent=2))
