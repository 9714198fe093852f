"""The image of integrations/container, run as integrations/container/run does, on both versions
of cgroups: version 2 on the guest kernel of tests/uml, and whatever this machine has. Needs root,
podman, and the image `sandrun`; script/deploy-test brings both."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.deploy.check_proxies import free_port
from tests.deploy.client import SLEEP, Client, check
from tests.journeys.server import REPOSITORY, eventually
from tests.uml import boot

HERE = Path(__file__).resolve().parent
RUN = REPOSITORY / "integrations/container/run"
NAME = "sandrun-check"


def limits() -> list[str]:
    """The engine asks for more than it may give where it may not raise limits; so for less."""
    descriptors = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 20_000)
    return [f"--ulimit=nofile={descriptors}:{descriptors}", "--ulimit=nproc=10000:10000"]


def podman(*argv: str) -> str:
    return subprocess.run(
        ["podman", *argv], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def test_the_container_on_cgroup_v2() -> None:
    tree = podman("image", "mount", "sandrun")
    try:
        code, output = boot.run(
            ["sh", HERE / "guest_container.sh", REPOSITORY, tree, *limits()],
            readable=[REPOSITORY, Path(tree)],
            memory="1500M",
            timeout=240,
        )
    finally:
        podman("image", "unmount", "sandrun")
    assert code == 0, output
    jobs, _, rest = output[output.index("{") :].rpartition("\n{")
    facts = json.loads("{" + rest)
    print(facts)
    walls = json.loads(jobs)["walls"]
    assert walls["cgroup"] == {"memory": "v2", "pids": "v2", "cpu": "v2"}
    assert facts["swap_max"] == "0"
    assert facts["seccomp"] == "2", "the engine's own filter stays on"
    assert facts["bounding_set"] == "00000000082011eb"
    assert facts["stop_seconds"] < 5 and facts["left"] == 0


def test_the_container_on_this_machine() -> None:
    port = free_port()
    # crun takes no hybrid of both versions; in a mount namespace of ours there is only one.
    hide = "umount /sys/fs/cgroup/unified 2>/dev/null; exec "
    command = [str(RUN), "-d", "--name", NAME, "--network=host", *limits(), "sandrun"]
    command += ["--port", str(port), "--no-quotas"]
    in_namespace = ["unshare", "--mount", "sh", "-c", hide + '"$0" "$@"']
    subprocess.run([*in_namespace, *command], check=True, timeout=60)
    try:
        facts: dict[str, Any] = check(client := Client(f"http://127.0.0.1:{port}"))
        client.start(SLEEP)
        groups = folders()
    finally:
        begun = time.monotonic()
        subprocess.run([*in_namespace, "podman", "stop", "--time=5", NAME], check=True)
        seconds = time.monotonic() - begun
    print(facts["walls"], groups, seconds)
    assert groups and seconds < 5
    assert eventually(lambda: not folders(), 5), folders()


def folders() -> list[str]:
    return [path for path, _, _ in os.walk("/sys/fs/cgroup") if "libpod-" in path]
