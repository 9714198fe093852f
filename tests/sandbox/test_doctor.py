"""What the doctor says of machines: a healthy one made of files, and one ailment at a time. Nothing
here is run (tests/journeys/test_doctor.py does that), but for the claims about kernel bugs, which
are asked of a real sandbox.
"""

import errno
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sandbox import doctor
from sandbox.doctor import BAD, CHECKS, GOOD, TRIALS, WARNING, Finding
from sandbox.doctor.__main__ import passes, table
from sandbox.doctor.bugs import BUGS
from tests.nobody import as_nobody

REPOSITORY = Path(__file__).resolve().parents[2]
SITE = next(path for path in sys.path if path.endswith("site-packages")).lstrip("/")
IDS = "0 0 4294967295"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
V1 = "\n".join(
    f"3{n} 31 0:3{n} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}"
    for n, name in enumerate(("memory", "pids", "cpu", "cpuacct"))
)
PROC = "22 27 0:21 / /proc rw,relatime - proc proc rw,hidepid=invisible"
SWAPS = "Filename\tType\tSize\tUsed\tPriority\n"
LIMITS = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024     {}     files\n"
AUDIT = "## nothing about execve\n-w /etc/passwd -p wa\n-a never,exit -S execve -F uid=1\n"

HEALTHY: dict[str, str] = {
    "proc/version": "Linux version 6.12.99 (root@home) (gcc (Debian 5.2.0-1) 5.2.0) #1 SMP",
    "proc/sys/kernel/version": "#1 SMP built by hand on Debian 5.2.0",
    "proc/sys/kernel/osrelease": "6.12.99",
    "proc/sys/kernel/seccomp/actions_avail": "kill_process kill_thread trap errno allow",
    "proc/filesystems": "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\n\text4\n",
    **{f"proc/self/ns/{name}": "" for name in ("user", "pid", "mnt", "ipc", "uts", "net")},
    "proc/self/ns/cgroup": "",
    "proc/sys/user/max_user_namespaces": "63000",
    "proc/sys/user/max_net_namespaces": "63000",
    "proc/self/uid_map": IDS,
    "proc/self/gid_map": IDS,
    "proc/self/limits": LIMITS.format(524288),
    "proc/self/mountinfo": f"{PROC}\n{V2}\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids",
    "run/systemd/system/.keep": "",
    "usr/bin/systemd-run": "",
    "proc/swaps": SWAPS,
    "proc/stat": "cpu 1 2 3\nbtime 1700000000\n",
    "proc/1/comm": "systemd",
    "sys/power/state": "freeze mem",
    "sys/kernel/mm/ksm/run": "0",
    "proc/sys/kernel/core_pattern": "core",
    "proc/sys/debug/exception-trace": "0",
    "proc/sys/kernel/print-fatal-signals": "0",
    "proc/sys/kernel/dmesg_restrict": "1",
    "proc/sys/kernel/perf_event_paranoid": "2",
    "sys/devices/system/cpu/smt/active": "0",
    "sys/devices/system/cpu/vulnerabilities/meltdown": "Mitigation: PTI",
    "sys/devices/system/cpu/vulnerabilities/mds": "Not affected",
    "sys/kernel/tracing/current_tracer": "nop",
    "sys/kernel/tracing/events/enable": "0",
    "etc/audit/audit.rules": AUDIT,
    "tmp/.keep": "",
    **{
        f"{SITE}/{name}-{version}.dist-info/METADATA": f"Name: {name}\nVersion: {version}\n"
        for name, version in (("daphne", "4.2.3"), ("Django", "5.2.13"), ("Twisted", "24.7.0"),
                              ("autobahn", "26.7.1"))
    },
}  # fmt: skip
Change = Mapping[str, str | None]


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """In place of the folder's own: files are read here, and nothing is left of that."""


def machine(root: Path, change: Change) -> Path:
    """The healthy machine with some files changed, or with None taken away."""
    for path, text in {**HEALTHY, **change}.items():
        if text is not None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
    return root


def findings(root: Path, change: Change) -> dict[str, Finding]:
    """What is not good, by name."""
    found = doctor.examine(CHECKS, machine(root, change))
    return {finding.name: finding for finding in found if finding.verdict != GOOD}


def kernel(release: str) -> dict[str, str]:
    return {"proc/sys/kernel/osrelease": release}


def test_a_healthy_machine_has_nothing_to_say(tmp_path: Path) -> None:
    assert findings(tmp_path, {}) == {}


OFFERED = "sys/fs/cgroup/cgroup.controllers"
MOUNTS = "proc/self/mountinfo"
PATTERN = "proc/sys/kernel/core_pattern"
SWAPFILE = SWAPS + "/swapfile file 1 0 -2\n"
ZRAM = SWAPS + "/dev/zram0 partition 1 0 100\n"
CPU = "sys/devices/system/cpu"


@pytest.mark.parametrize(
    ("name", "verdict", "change", "word"),
    [
        ("kernel", BAD, kernel("5.11.22"), "5.12"),
        ("kernel", WARNING, kernel("6.0.19"), "6.1"),
        ("seccomp", BAD, {"proc/sys/kernel/seccomp/actions_avail": None}, "CONFIG_SECCOMP"),
        ("file systems", BAD, {"proc/filesystems": "nodev\tproc\n"}, "no tmpfs"),
        ("namespaces", BAD, {"proc/self/ns/user": None}, "no user namespaces"),
        ("namespaces", BAD, {"proc/sys/user/max_user_namespaces": "0"}, "max_user_namespaces = 1"),
        ("namespaces", WARNING, {"proc/sys/user/max_net_namespaces": "99"}, "max_net_namespaces"),
        ("job ids", BAD, {"proc/self/uid_map": "0 100000 65536"}, "--uidmap"),
        ("job ids", BAD, {"proc/self/gid_map": "0 100000 65536"}, "gids"),
        ("job ids", WARNING, {"etc/subuid": "me:1:9\nyou:1900000000:65536\n"}, "you:19"),
        ("job ids", WARNING, {"etc/subgid": "you:1900059999:1\n"}, "/etc/subgid"),
        ("cgroups", BAD, {OFFERED: "cpu pids"}, "no memory (found: pids v2, cpu v2)"),
        ("cgroups", BAD, {MOUNTS: PROC}, "mount -t cgroup2"),
        ("cgroups", BAD, {MOUNTS: f"{PROC}\n{V2}".replace("rw,nosuid", "ro,nosuid")}, "read-only"),
        ("cgroups", BAD, {MOUNTS: f"{PROC}\n{V1}".replace("cpuacct", "x")}, "no cpuacct"),
        ("delegation", WARNING, {"usr/bin/systemd-run": None}, "systemd-run"),
        ("swap", BAD, {"proc/swaps": SWAPFILE, MOUNTS: f"{PROC}\n{V1}"}, "swapoff -a"),
        ("swap", BAD, {"proc/swaps": ZRAM, MOUNTS: f"{PROC}\n{V1}"}, "/dev/zram0"),
        ("swap", WARNING, {"proc/swaps": SWAPFILE}, "/swapfile"),
        ("swap", WARNING, {"proc/swaps": ZRAM, "sys/block/zram0/backing_dev": "/dev/sda1"}, "zram"),
        ("hibernation", WARNING, {"sys/power/state": "mem disk", "sys/power/resume": "8:2"},
         "hibernate.target"),
        ("shared pages", WARNING, {"sys/kernel/mm/ksm/run": "1"}, "echo 2"),
        ("core dumps", WARNING, {PATTERN: "|/usr/lib/systemd/systemd-coredump %P %u"}, "coredump"),
        ("core dumps", WARNING, {PATTERN: "|/usr/share/apport/apport -p%p"}, "apport.service"),
        ("core dumps", WARNING, {PATTERN: "@/run/coredump.socket"}, "/run/coredump.socket"),
        ("crash log", WARNING, {"proc/sys/debug/exception-trace": "1"}, "exception-trace = 0"),
        ("crash log", WARNING, {"proc/sys/kernel/print-fatal-signals": "1"}, "signals = 0"),
        ("watchers", WARNING, {"proc/77/comm": "auditd"}, "disable --now auditd"),
        ("watchers", WARNING, {"proc/77/comm": "execsnoop-bpfcc"[:15]}, "execsnoop"),
        ("audit rules", WARNING, {"etc/audit/rules.d/10.rules": "-a always,exit -F arch=b64 -S "
                                  "execve -k x"}, "auditctl -A exit,never"),
        ("accounting", WARNING, {"var/log/account/pacct": "x"}, "accton off"),
        ("tracing", WARNING, {"sys/kernel/tracing/current_tracer": "function"}, "echo nop"),
        ("tracing", WARNING, {"sys/kernel/tracing/events/enable": "X"}, "events X"),
        ("kernel log", WARNING, {"proc/sys/kernel/dmesg_restrict": "0"}, "dmesg_restrict = 1"),
        ("process list", WARNING, {MOUNTS: f"{PROC}\n{V2}".replace(",hidepid=invisible", "")},
         "remount,hidepid"),
        ("process list", WARNING, {MOUNTS: f"{PROC}\n{V2}".replace("invisible", "off")}, "hidepid"),
        ("profiling", WARNING, {"proc/sys/kernel/perf_event_paranoid": "-1"}, "paranoid = 2"),
        ("hyperthreads", WARNING, {f"{CPU}/smt/active": "1"}, "smt/control"),
        ("processor bugs", WARNING, {f"{CPU}/vulnerabilities/mds": "Vulnerable: no microcode"},
         "vulnerable: mds"),
        # The packages of a repository below /tmp lie there in the test's machine as well.
        *[("temporary files", BAD, {"tmp/.keep": None}, "mkdir")][SITE.startswith("tmp/") :],
        ("descriptors", WARNING, {"proc/self/limits": LIMITS.format(1024)}, "1024 open"),
        ("packages", BAD, {f"{SITE}/daphne-4.2.3.dist-info/METADATA": "Name: daphne\n"
                           "Version: 4.2.1\n"}, "daphne 4.2.1 (needs 4.2.3)"),
        ("packages", BAD, {f"{SITE}/Twisted-24.7.0.dist-info/METADATA": None}, "Twisted missing"),
    ],
)  # fmt: skip
def test_one_ailment_is_told_with_what_it_means_and_what_to_do(
    name: str, verdict: str, change: Change, word: str, tmp_path: Path
) -> None:
    """OP-01, OP-03 (packages), DP-03 (swap), DP-15 (process list), DP-16, PR-12 (processors)."""
    found = findings(tmp_path, change)
    allowed = {name, "kernel bugs"} if name == "kernel" else {name}
    assert name in found and found.keys() <= allowed, found
    assert found[name].verdict == verdict
    assert found[name].meaning and found[name].remedy
    assert word in " ".join(found[name])


@pytest.mark.parametrize(
    ("change", "name", "word"),
    [
        ({"proc/sys/kernel/unprivileged_userns_clone": "0"}, "namespaces", "without root"),
        ({"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, "namespaces", "apparmor"),
        ({"proc/self/uid_map": "0 0 1\n1899999998 7 60002\n"}, "job ids", "nobody else's"),
        ({MOUNTS: f"{PROC}\n{V1}"}, "cgroups", "memory v1, pids v1, cpu v1, cpuacct v1"),
        ({MOUNTS: f"{PROC}\n{V1}\n{V2}", OFFERED: "hugetlb"}, "cgroups", "memory v1"),
        ({"run/systemd/system/.keep": None}, "delegation", "no systemd"),
        ({"usr/bin/systemd-run": None, MOUNTS: f"{PROC}\n{V1}"}, "delegation", "version 1"),
        ({"proc/swaps": ZRAM, "sys/block/zram0/backing_dev": "none"}, "swap", "compressed"),
        ({"sys/power/state": "mem disk", "sys/power/resume": "0:0"}, "hibernation", "never"),
        ({"proc/sys/kernel/perf_event_paranoid": None}, "profiling", "nobody"),
        ({"sys/kernel/tracing/current_tracer": None}, "tracing", "no tracefs"),
        ({"proc/self/limits": LIMITS.format("unlimited")}, "descriptors", "unlimited"),
        ({"proc/77/comm": "auditd-look-alike"}, "watchers", "no program"),
    ],
)
def test_what_looks_like_an_ailment_and_is_none(
    change: Change, name: str, word: str, tmp_path: Path
) -> None:
    told = {finding.name: finding for finding in doctor.examine(CHECKS, machine(tmp_path, change))}
    assert told[name].verdict == GOOD
    assert word in told[name].found


@pytest.mark.parametrize(
    ("allowed", "verdict"),
    [("", BAD), ("cgroup-memory", WARNING), ("cgroups", WARNING), ("cgroup-pids", BAD)],
)
def test_a_controller_that_may_be_missing_is_a_warning(
    allowed: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDRUN_ALLOW_MISSING", allowed)
    assert findings(tmp_path, {OFFERED: "cpu pids"})["cgroups"].verdict == verdict


def test_swap_is_bad_where_no_cgroup_limits_it(tmp_path: Path) -> None:
    found = findings(tmp_path, {OFFERED: "cpu pids", "proc/swaps": SWAPFILE})
    assert found["swap"].verdict == BAD


def test_accounting_that_ended_before_the_boot_is_history(tmp_path: Path) -> None:
    machine(tmp_path, {"var/log/account/pacct": "x"})
    os.utime(tmp_path / "var/log/account/pacct", (1_600_000_000, 1_600_000_000))
    told = {finding.name: finding.verdict for finding in doctor.examine(CHECKS, tmp_path)}
    assert told["accounting"] == GOOD


def test_a_file_that_makes_no_sense_is_a_warning_and_hides_no_other(tmp_path: Path) -> None:
    change = {"proc/sys/kernel/dmesg_restrict": "perhaps", "sys/kernel/mm/ksm/run": "1"}
    found = findings(tmp_path, change)
    assert found.keys() == {"kernel log", "shared pages"}
    assert found["kernel log"].verdict == WARNING
    assert "perhaps" in found["kernel log"].found


def test_nothing_at_all_can_be_called_healthy_without_files(tmp_path: Path) -> None:
    told = {finding.name: finding.verdict for finding in doctor.examine(CHECKS, tmp_path)}
    for name in ("seccomp", "file systems", "namespaces", "job ids", "cgroups", "packages"):
        assert told[name] == BAD
    assert told["kernel"] == WARNING


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="machine-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_what_only_root_can_see_is_said_to_need_root(open_folder: Path) -> None:
    machine(open_folder, {})
    for path in ("sys/kernel/tracing", "etc/audit"):
        (open_folder / path).chmod(0o700)
    script = (
        "import json, sys; from pathlib import Path; from sandbox.doctor import *\n"
        "print(json.dumps(examine(CHECKS, Path(sys.argv[1]))))"
    )
    done = subprocess.run(
        [*as_nobody(open_folder), sys.executable, "-I", "-c", script, str(open_folder)],
        capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    told = [Finding(*row) for row in json.loads(done.stdout)]
    blind = [finding for finding in told if finding.verdict != GOOD]
    assert {finding.name for finding in blind} == {"tracing", "audit rules"}
    for finding in blind:
        assert finding.verdict == WARNING
        assert "needs root" in finding.found and finding.remedy.startswith("sudo")


def test_a_process_list_that_is_hidden_is_not_called_good(tmp_path: Path) -> None:
    assert "needs root" in findings(tmp_path, {"proc/1/comm": None})["watchers"].found


# --- kernel bugs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "bug", "there"),
    [
        ("5.15.24", "CVE-2022-0847", True),
        ("5.15.25", "CVE-2022-0847", False),
        ("5.16.1", "CVE-2022-0185", True),
        ("5.15.20", "CVE-2022-0492", False),
        ("6.1.36", "CVE-2023-3269", True),
        ("6.2.16", "CVE-2023-3269", True),  # a branch that was never mended
        ("5.15.36", "CVE-2023-3269", False),  # older than the bug
        ("6.1.46", "CVE-2023-4622", True),
        ("6.5", "CVE-2023-4622", False),
        ("6.6.14", "CVE-2024-1086", True),
        ("6.8.6", "CVE-2024-26923", True),
        ("6.6.95", "CVE-2025-38236", True),
        ("6.6.96", "CVE-2025-38236", False),
        ("6.1.140", "CVE-2025-40214", False),  # came to this branch with 6.1.141
        ("6.1.141", "CVE-2025-40214", True),
        ("6.1.158", "CVE-2025-40214", True),
        ("6.18.22", "CVE-2026-23394", True),
        ("6.18.22", "CVE-2026-31431", False),
        ("7.0.4", "CVE-2026-43284", True),
        ("6.18.37", "CVE-2026-53362", True),
        ("6.18.38", "CVE-2026-53362", False),
    ],
)
def test_a_kernel_is_warned_about_until_the_version_that_mended_it(
    version: str, bug: str, there: bool, tmp_path: Path
) -> None:
    found = findings(tmp_path, kernel(version)).get("kernel bugs")
    assert (found is not None and bug in found.meaning) == there
    if found:
        assert found.verdict == WARNING, "distributions mend without a new version"
        assert "Unless your distribution has mended" in found.meaning


def test_no_bug_is_left_in_a_kernel_that_is_newer_than_all_of_them(tmp_path: Path) -> None:
    assert findings(tmp_path, kernel("7.2.1")) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"proc/sys/kernel/osrelease": "6.1.0-37-amd64",
         "proc/sys/kernel/version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.140-1 (2025-05-22)"},
        {"proc/sys/kernel/osrelease": "6.1.0-9-generic",
         "proc/version_signature": "Ubuntu 6.1.0-9.9-generic 6.1.140"},
        {"proc/sys/kernel/osrelease": "6.1.140-talos"},
    ],
)  # fmt: skip
def test_the_upstream_version_is_found_in_each_distributions_name(
    change: dict[str, str], tmp_path: Path
) -> None:
    found = findings(tmp_path, change)["kernel bugs"]
    assert "6.1.140" in found.found
    assert "CVE-2025-38236" in found.meaning and "CVE-2023-3269" not in found.meaning


def test_the_ranges_of_every_bug_are_in_order_and_do_not_meet() -> None:
    for bug in BUGS:
        ends = [tuple(map(int, end.split("."))) for end in re.split(r"[ -]", bug.ranges)]
        assert len(ends) % 2 == 0 and ends == sorted(set(ends)), bug.name


REACH = """
import ctypes, os, socket
def told(name, call):
    try: call(); print(name, "works")
    except OSError as error: print(name, error.errno)
def raw(number):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 0, 0, 0, 0, 0, 0) < 0: raise OSError(ctypes.get_errno(), "")
a, b = socket.socketpair()
file = open("/job/x", "w+b"); file.write(b"x"); file.flush()
told("sendfile", lambda: os.sendfile(a.fileno(), file.fileno(), 0, 1))
told("MSG_OOB", lambda: a.send(b"x", socket.MSG_OOB))
told("MSG_PEEK", lambda: b.recv(1, socket.MSG_PEEK))
told("SCM_RIGHTS", lambda: socket.send_fds(a, [b"x"], [0]))
told("splice", lambda: raw(275))
told("fsconfig", lambda: raw(431))
told("mount", lambda: raw(165))
told("AF_ALG", lambda: socket.socket(38, socket.SOCK_SEQPACKET))
told("netlink", lambda: socket.socket(16, socket.SOCK_RAW, 12))
told("network", lambda: socket.socket(10, socket.SOCK_DGRAM).sendto(b"x", ("::1", 9)))
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="call numbers of x86-64")
def test_what_is_said_to_be_denied_is_and_what_is_said_to_be_allowed_works() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "sandbox", "run", "--", "python3", "-c", REACH],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["exit_code"] == 0, answer["stderr"]
    told = dict(line.split() for line in answer["stdout"].splitlines())
    if told["MSG_OOB"] == str(errno.EOPNOTSUPP):
        told["MSG_OOB"] = "works"  # allowed, but a kernel without CONFIG_AF_UNIX_OOB has no such
    allowed = {"sendfile", "MSG_OOB", "MSG_PEEK", "SCM_RIGHTS"}
    assert {name for name, word in told.items() if word == "works"} == allowed
    walls = " ".join(bug.wall for bug in BUGS)
    for name in told.keys() - allowed:
        assert name in walls


# --- words -------------------------------------------------------------------------------------


def test_every_check_has_a_name_and_a_number_of_its_own_and_is_explained() -> None:
    every = (*CHECKS, *TRIALS)
    assert len({check.name for check in every}) == len({check.number for check in every})
    explained = re.findall(r"(?m)^\| ([a-z ]+) \|", (REPOSITORY / "docs/doctor.md").read_text())
    assert explained == ["check", *(check.name for check in every)]


def test_the_table_is_aligned_and_tells_the_remedy_of_what_is_not_good() -> None:
    text = table(
        [
            Finding("swap", GOOD, "none"),
            Finding("crash log", WARNING, "on", "names are kept", "sysctl -w x=0"),
        ]
    )
    assert text.splitlines() == [
        "swap       good     none",
        "crash log  warning  on",
        "    names are kept",
        "    Remedy: sysctl -w x=0",
        "",
        "0 bad, 1 warning, 1 good",
    ]


@pytest.mark.parametrize(
    ("verdicts", "usually", "strictly"),
    [([], True, True), ([GOOD], True, True), ([GOOD, WARNING], True, False),
     ([BAD, GOOD], False, False)],
)  # fmt: skip
def test_only_what_is_bad_fails_unless_strict(
    verdicts: list[str], usually: bool, strictly: bool
) -> None:
    told = [Finding("x", verdict, "") for verdict in verdicts]
    assert (passes(told, strict=False), passes(told, strict=True)) == (usually, strictly)
