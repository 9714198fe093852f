"""`sandrun doctor`, `manage.py check` and `script/server --strict` on this machine, as it is and
with something broken or mended: in a mount namespace of the test's own, so nobody else sees it.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sandbox import doctor
from tests.journeys.server import REPOSITORY, Server
from tests.nobody import as_nobody

DOCTOR = str(REPOSITORY / ".venv/bin/sandrun")
CHECK = [sys.executable, "-I", str(REPOSITORY / "manage.py"), "check"]
OPEN = "user/max_user_namespaces"
MENDED = """
mount -t proc -o hidepid=invisible proc /proc
mount --bind zero /proc/sys/debug/exception-trace
mount --bind zero /proc/sys/kernel/print-fatal-signals
mount --bind one /proc/sys/kernel/dmesg_restrict
mount -t tmpfs none /sys/devices/system/cpu/vulnerabilities
[ ! -e /sys/devices/system/cpu/smt/active ] || mount --bind zero /sys/devices/system/cpu/smt/active
"""


class Told(NamedTuple):
    code: int
    findings: dict[str, doctor.Finding]

    @property
    def verdicts(self) -> set[str]:
        return {finding.verdict for finding in self.findings.values()}


def inside(folder: Path, change: str) -> list[str]:
    """A prefix: in a mount namespace where `change` was done, with files zero and one at hand."""
    (folder / "zero").write_text("0\n")
    (folder / "one").write_text("1\n")
    script = f'cd {shlex.quote(str(folder))}; {change}\ncd /; exec "$0" "$@"'
    return ["unshare", "--mount", "sh", "-euc", script]


def run(*words: str, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(prefix or []), *words], capture_output=True, text=True, timeout=60, cwd="/"
    )


def ask(*options: str, prefix: list[str] | None = None) -> Told:
    done = run(DOCTOR, "doctor", "--json", *options, prefix=prefix)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return Told(done.returncode, {row["name"]: doctor.Finding(**row) for row in rows})


def test_it_makes_a_sandbox_and_its_exit_code_is_its_findings() -> None:
    told = ask()
    assert list(told.findings) == [check.name for check in (*doctor.CHECKS, *doctor.TRIALS)]
    assert told.findings["sandbox"].verdict == doctor.GOOD
    assert "python3 3." in told.findings["sandbox"].found
    assert told.code == (doctor.BAD in told.verdicts)
    strict = ask("--strict", "--look")
    assert list(strict.findings) == [check.name for check in doctor.CHECKS]
    assert strict.code == bool(strict.verdicts & {doctor.BAD, doctor.WARNING})


def test_the_table_says_what_the_list_says() -> None:
    rows = run(DOCTOR, "doctor", "--look").stdout.splitlines()
    for finding in ask("--look").findings.values():
        assert any(row.split("  ")[0] == finding.name and finding.verdict in row for row in rows)
        if finding.verdict != doctor.GOOD:
            assert f"    Remedy: {finding.remedy}" in rows


def test_a_sysctl_that_leaves_no_namespaces_is_bad(tmp_path: Path) -> None:
    prefix = inside(tmp_path, f"mount --bind zero /proc/sys/{OPEN}")
    told = ask("--look", prefix=prefix)
    assert told.code == 1
    assert told.findings["namespaces"].verdict == doctor.BAD
    assert "user.max_user_namespaces = 10000" in told.findings["namespaces"].remedy


def test_a_machine_without_cgroups_has_no_sandbox_and_is_told_the_step(tmp_path: Path) -> None:
    told = ask(prefix=inside(tmp_path, "umount --recursive --lazy /sys/fs/cgroup"))
    assert told.code == 1
    assert told.findings["cgroups"].verdict == doctor.BAD
    assert told.findings["sandbox"].verdict == doctor.BAD
    assert "cgroup" in told.findings["sandbox"].found


def test_without_root_it_tells_the_rest_and_does_not_pass_strictly() -> None:
    told = ask(prefix=as_nobody())
    assert "needs root" in told.findings["sandbox"].found
    assert told.findings["filter"].verdict == doctor.GOOD
    assert told.findings["cgroups"].verdict == doctor.GOOD
    assert told.code == (doctor.BAD in told.verdicts)
    assert ask("--strict", prefix=as_nobody()).code == 1


def test_it_runs_from_any_folder_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "doctor's link").symlink_to(DOCTOR)
    done = subprocess.run(
        ["./doctor's link", "doctor", "--look"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.endswith(" good\n"), done.stderr


def test_a_command_that_there_is_not_is_refused() -> None:
    done = run(DOCTOR, "docter")
    assert done.returncode == 125 and "doctor" in done.stderr
    assert run(DOCTOR, "doctor", "--jsn").returncode == 2


@pytest.mark.parametrize(
    "change", ["", MENDED, f"mount --bind zero /proc/sys/{OPEN}"], ids=["as is", "mended", "broken"]
)
def test_djangos_checks_are_the_doctors(change: str, tmp_path: Path) -> None:
    prefix = inside(tmp_path, change)
    told = ask("--look", prefix=prefix)
    numbers = {check.name: check.number for check in doctor.CHECKS}
    letters = {doctor.BAD: "E", doctor.WARNING: "W"}
    wanted = {
        f"sandrun.{letters[finding.verdict]}{numbers[finding.name]}"
        for finding in told.findings.values()
        if finding.verdict != doctor.GOOD
    }
    done = run(*CHECK, prefix=prefix)
    text = done.stdout + done.stderr
    assert {word.strip("():") for word in text.split() if word.startswith("(sandrun.")} == wanted
    assert done.returncode == told.code


def test_a_start_that_was_not_asked_to_be_strict_says_nothing_of_it(tmp_path: Path) -> None:
    server = Server(prefix=inside(tmp_path, f"mount --bind zero /proc/sys/{OPEN}"))
    assert server.end() == 0
    assert "sandrun.E" not in server.banner and "sandrun.W" not in server.banner


@pytest.mark.parametrize("change", ["", MENDED], ids=["as is", "mended"])
def test_a_strict_server_starts_only_where_the_doctor_is_content(
    change: str, tmp_path: Path
) -> None:
    """OP-01: strict mode refuses to start."""
    prefix = inside(tmp_path, change)
    told = ask("--strict", "--look", prefix=prefix)
    if told.code:
        refused(prefix, told)
        return
    server = Server("--strict", "--no-quotas", prefix=prefix)
    try:
        status, logs = server.run({"main.py": b"print(6 * 7)"}, entrypoint="main.py")
    finally:
        assert server.end() == 0, server.banner
    assert (status["status"], logs["stdout"]) == ("completed", "42\n")


def test_a_strict_server_refuses_a_machine_with_a_bad_finding(tmp_path: Path) -> None:
    prefix = inside(tmp_path, f"{MENDED}\nmount --bind zero /proc/sys/{OPEN}")
    told = ask("--strict", "--look", prefix=prefix)
    assert told.findings["namespaces"].verdict == doctor.BAD
    refused(prefix, told)


def refused(prefix: list[str], told: Told) -> None:
    """It ends with 1, says why, and has not listened."""
    done = run(str(REPOSITORY / "script/server"), "--port", "0", "--strict", prefix=prefix)
    assert done.returncode == 1
    assert "--strict" in done.stderr.splitlines()[-1]
    assert "Sandrun is ready" not in done.stdout
    for finding in told.findings.values():
        if finding.verdict != doctor.GOOD:
            assert finding.found in done.stderr and finding.remedy in done.stderr


def test_what_users_import_brings_no_other_room_along() -> None:
    script = "import sys, sandrun, sandrun.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True)
    rooms = {name.split(".")[0] for name in done.stdout.split()}
    assert "sandrun" in rooms
    assert not rooms & {"sandbox", "jobs", "django", "frontend", "sandrun_site"}
    assert os.access(DOCTOR, os.X_OK)
