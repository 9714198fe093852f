"""Runs under systemd, as root, in the guest: uses the unit as docs/deployment.md says, and looks.

python3 -I guest_unit.py unit|scope    prints JSON last; an AssertionError or its like otherwise
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from client import SLEEP, Client, check  # noqa: E402

CHECKOUT = Path("/opt/sandrun")
UNITS = Path("/run/units")  # stands for /etc/systemd/system: /etc is read-only here
SLICE = Path("/sys/fs/cgroup/system.slice")
PORT = 8444


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def show(unit: str, name: str) -> str:
    return run("systemctl", "show", "--value", "--property", name, unit)


def eventually(true: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def sandrun_processes() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().decode(errors="replace")
            name = (process / "comm").read_text().strip()
        except OSError:
            continue
        ours = ("sandbox.keeper", "sandbox.launcher", "sandbox.signer", "manage.py")
        if any(words in line for words in ours):
            found.append(line.replace("\0", " "))
        elif name == "sandrun-inside":
            found.append(name)
    return found


def bounding_set(pid: str) -> str:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd"))


def unit() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    shutil.copy(CHECKOUT / "integrations/systemd/sandrun.service", UNITS)
    told = run(str(CHECKOUT / "script/server"), "--generate-key", "/run/worker.key")
    Path("/run/sandrun.env").write_text(
        f"SANDRUN_OPTIONS=--host 127.0.0.1 --port {PORT} --no-quotas\nSANDRUN_TTL_SECONDS=77\n"
        "SANDRUN_WORKER_KEY=/run/worker.key\n"
    )
    drop_in = UNITS / "sandrun.service.d"
    drop_in.mkdir()
    (drop_in / "env.conf").write_text("[Service]\nEnvironmentFile=/run/sandrun.env\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "sandrun")
    client = Client(f"http://127.0.0.1:{PORT}")
    facts["jobs"] = check(client)
    assert client.get("/")["limits"], "GET / tells limits"

    worker_id = client.get("/health")["worker_id"]
    assert worker_id and told.endswith(f"Worker ID: {worker_id}"), (worker_id, told)

    # Two jobs died for memory and time: the service did not.
    keeper = show("sandrun", "MainPID")
    group = SLICE / "sandrun.service"
    facts["restarts"] = show("sandrun", "NRestarts")
    facts["oom_policy"] = show("sandrun", "OOMPolicy")
    facts["swap_max"] = (group / "memory.swap.max").read_text().strip()
    facts["at_the_top"] = (group / "cgroup.procs").read_text().split()
    facts["groups"] = sorted(path.name for path in group.glob("sandrun-*/*/"))
    facts["bounding_set"] = bounding_set(keeper)
    facts["memory_of_service"] = show("sandrun", "MemoryCurrent")

    # Killed with -9 while a job runs, it is back by itself, and nothing of before is left.
    client.start(SLEEP)
    before = {path.name for path in group.glob("sandrun-*")}
    os.kill(int(keeper), signal.SIGKILL)
    assert eventually(lambda: show("sandrun", "MainPID") not in ("0", keeper)), "no restart"
    check(client)
    facts["restarts_after_kill"] = show("sandrun", "NRestarts")
    facts["left_of_before"] = sorted(before & {path.name for path in group.glob("sandrun-*")})
    facts["processes"] = len(sandrun_processes())

    # Stopped while a job runs.
    client.start(SLEEP)
    started = time.monotonic()
    run("systemctl", "stop", "sandrun")
    facts["stop_seconds"] = round(time.monotonic() - started, 2)
    facts["result"] = show("sandrun", "Result")
    facts["left"] = [*map(str, SLICE.glob("sandrun*")), *sandrun_processes()]

    # A wrong option is no reason to try again and again.
    Path("/run/sandrun.env").write_text("SANDRUN_OPTIONS=--no-such-option\n")
    subprocess.run(["systemctl", "start", "sandrun"], check=False)
    assert eventually(lambda: show("sandrun", "ActiveState") == "failed"), "no end"
    facts["wrong_option"] = [show("sandrun", "ExecMainStatus"), show("sandrun", "NRestarts")]
    return facts


def scope() -> dict[str, Any]:
    """script/server typed by a person: it asks systemd for a delegated scope itself."""
    environment = {name: value for name, value in os.environ.items() if name != "SANDRUN_SCOPE"}
    server = subprocess.Popen(
        [str(CHECKOUT / "script/server"), "--port", str(PORT), "--no-quotas"],
        env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr,
    )  # fmt: skip
    client = Client(f"http://127.0.0.1:{PORT}")
    facts: dict[str, Any] = {"jobs": check(client)}
    scopes = list(SLICE.glob("run-*.scope"))
    facts["scopes"] = len(scopes)
    facts["delegated"] = show(scopes[0].name, "Delegate")
    facts["groups"] = sorted(path.name for path in scopes[0].glob("sandrun-*/*/"))
    client.start(SLEEP)
    started = time.monotonic()
    server.send_signal(signal.SIGINT)
    facts["code"] = server.wait(15)
    facts["stop_seconds"] = round(time.monotonic() - started, 2)
    eventually(lambda: not list(SLICE.glob("run-*.scope")), 5)
    facts["left"] = [*map(str, SLICE.glob("run-*.scope")), *sandrun_processes()]
    return facts


if __name__ == "__main__":
    print("\n" + json.dumps({"unit": unit, "scope": scope}[sys.argv[1]]()))
