"""The unit of integrations/systemd, started by a real systemd on the guest kernel of tests/uml."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.uml import boot

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SYSTEMD = Path("/lib/systemd/systemd")

pytestmark = pytest.mark.skipif(
    not (boot.installed() and SYSTEMD.exists() and shutil.which("systemctl")),
    reason="needs linux.uml and systemd (Debian packages user-mode-linux and systemd)",
)


def under_systemd(what: str) -> dict[str, Any]:
    program = ["/usr/bin/python3", "-I", HERE / "guest_unit.py", what]
    code, output = boot.run(
        ["sh", HERE / "guest_systemd.sh", REPOSITORY, *program],
        readable=[REPOSITORY],
        memory="1024M",
        timeout=300,
    )
    assert code == 0, output
    facts: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    print(json.dumps(facts, indent=2))
    return facts


def test_the_unit_runs_jobs_restarts_and_stops_without_a_trace() -> None:
    facts = under_systemd("unit")
    assert facts["jobs"]["walls"]["cgroup"] == {"memory": "v2", "pids": "v2", "cpu": "v2"}
    assert facts["restarts"] == "0" and facts["oom_policy"] == "continue"
    assert facts["at_the_top"] == [] and facts["groups"] == ["jobs", "service"]
    assert facts["swap_max"] == "0"
    assert facts["restarts_after_kill"] == "1"
    assert facts["left_of_before"] == [] and facts["processes"] == 4
    assert facts["stop_seconds"] < 5 and facts["result"] == "success"
    assert facts["left"] == []
    assert facts["wrong_option"] == ["2", "0"]


def test_without_the_unit_script_server_gets_a_delegated_scope() -> None:
    facts = under_systemd("scope")
    assert (facts["scopes"], facts["delegated"]) == (1, "yes")
    assert facts["groups"] == ["jobs", "service"]
    assert facts["code"] == 0 and facts["stop_seconds"] < 5
    assert facts["left"] == []
