"""PR: /proc, /sys, and what a job can learn about the machine."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from sandbox.model import Limits
from tests.attacks.arena import Attacker
from tests.attacks.checkout import REPOSITORY
from tests.attacks.numbers import number

# Where one write would be the machine's end, or its owner's.
SWITCHES = """
sys/kernel/core_pattern sys/kernel/modprobe sys/kernel/hotplug sys/kernel/ns_last_pid
sys/kernel/domainname sys/kernel/hostname sys/kernel/core_uses_pid sys/kernel/panic
sys/kernel/printk sys/kernel/sysrq sys/kernel/randomize_va_space sys/kernel/yama/ptrace_scope
sys/kernel/pid_max sys/kernel/threads-max sys/kernel/shmmax sys/kernel/kptr_restrict
sys/vm/overcommit_memory sys/vm/drop_caches sys/vm/panic_on_oom sys/vm/swappiness
sys/vm/compact_memory sys/fs/binfmt_misc/register sys/fs/binfmt_misc sys/fs/suid_dumpable
sys/fs/file-max sys/fs/mqueue/queues_max sys/net sys/net/core/somaxconn sys/net/ipv4/ip_forward
sys/net/ipv4/ip_unprivileged_port_start sys/user/max_user_namespaces sysrq-trigger 1/oom_score_adj
1/comm 1/uid_map 1/mem latency_stats mtrr acpi/wakeup
""".split()
SECRETS = """
kcore kallsyms kmsg keys key-users timer_list sched_debug config.gz slabinfo iomem ioports modules
interrupts acpi scsi bus irq fs driver sys sysrq-trigger kpagecount kpageflags kpagecgroup
vmallocinfo zoneinfo buddyinfo pagetypeinfo softirqs swaps mdstat partitions devices locks cgroups
filesystems consoles crypto dma execdomains fb misc tty sysvipc cmdline version mounts 1 1/environ
1/mem 1/root 1/exe 1/fd 1/maps 1/cmdline
""".split()
SHARED = """
loadavg stat meminfo diskstats pressure pressure/cpu net net/dev net/tcp net/unix uptime vmstat
cpuinfo schedstat
""".split()


def test_no_switch_of_the_machine_can_be_turned(attacker: Attacker) -> None:
    """PR-01. Some forty files below /proc are written to; and it asks to be spared when memory is
    short. Each of those that matter most is compared on the machine."""
    there = [name for name in SWITCHES if os.path.lexists(f"/proc/{name}")]
    assert len(there) > 25
    watched = ["core_pattern", "hostname", "panic", "pid_max"]
    before = [Path(f"/proc/sys/kernel/{name}").read_text() for name in watched]
    code = (
        "def write(path):\n"
        "    with open(path, 'w') as file: file.write('1')\n"
        "adj = Path('/proc/self/oom_score_adj')\n"
        "own = int(adj.read_text())\n"
        "say([sorted({tried(write, '/proc/' + name) for name in sys.argv[1:]}),\n"
        "     tried(write, '/proc/nothing-like-it'),\n"
        "     [tried(adj.write_text, str(value)) for value in (own - 1, -1000)],\n"
        "     tried(adj.write_text, str(own + 1)), tried(adj.write_text, str(own)),\n"
        "     [tried(write, '/proc/self/' + f)\n"
        "      for f in ('loginuid', 'mem', 'attr/current', 'gid_map', 'ns/net')]])"
    )
    answers, control, spared, worse, back, own = attacker.python(code, *SWITCHES).said
    assert answers == [control] and control in ("ENOENT", "EACCES")
    assert spared == ["EACCES", "EACCES"]
    assert worse == "ok" and back in ("ok", "EACCES")
    assert own[3] == "EPERM" and own[4] in ("EACCES", "EPERM"), own
    assert before == [Path(f"/proc/sys/kernel/{name}").read_text() for name in watched]


def test_proc_tells_nothing_of_the_machine(attacker: Attacker) -> None:
    """PR-02, PR-11, PR-05. Everything that a full /proc has beside processes is asked for by name;
    what is left of the network is that of an empty namespace."""
    names = [*SECRETS, *SHARED]
    assert sum(os.path.lexists(f"/proc/{name}") for name in names) > 30
    code = (
        "net = Path('/proc/self/net')\n"
        "lines = lambda name: (net / name).read_text().splitlines()[1:]\n"
        "say([[n for n in sys.argv[1:] if os.path.lexists('/proc/' + n)], os.listdir('/proc'),\n"
        "     [lines(name) for name in ('tcp', 'udp', 'unix', 'route')],\n"
        "     os.stat('/proc/self').st_uid])"
    )
    found, listed, sockets, owner = attacker.python(code, *names).said
    assert found == []
    assert sorted(listed) == ["2", "self", "thread-self"]
    assert sockets == [[]] * 4
    assert owner == 1000


def test_proc_is_hidden_by_the_kernel_and_not_by_masks(attacker: Attacker) -> None:
    """PR-03. The archive has files and folders named like devices and like what other sandboxes
    cover; the job replaces /dev/null, and the machine shows what its /proc and /dev really are."""
    code = (
        "kind = lambda path: subprocess.run(['stat', '-f', '-c', '%T', path],\n"
        "                                   capture_output=True, text=True).stdout.strip()\n"
        "null = os.stat('/dev/null')\n"
        "def link(target, name): os.symlink(target, name)\n"
        "say([kind('/proc'), kind('/dev'), [os.major(null.st_rdev), os.minor(null.st_rdev)],\n"
        "     null.st_dev == os.stat('/dev').st_dev, os.stat('/proc').st_dev,\n"
        "     [tried(link, '/proc/kcore', p) for p in ('/dev/null', '/dev/x', '/proc/x')],\n"
        "     [tried(os.rename, 'dev/null', '/dev/null'), tried(os.unlink, '/dev/null')],\n"
        "     sorted(p for p in os.listdir('/job') if p in ('dev', 'proc')),\n"
        "     Path('/job/dev/null').read_text()])"
    )
    files = {"dev/null": b"mine", "proc/kcore": b"x", "proc/1/root/x": b"x", "dev/shm/x": b"x"}
    with attacker.held(code, files=files) as job:
        proc, dev, null, same, device, links, replaced, listed, text = job.said
        assert (proc, dev, null, same) == ("proc", "tmpfs", [1, 3], True)
        assert links == ["EEXIST", "EROFS", links[2]] and links[2] in ("ENOENT", "EACCES", "EPERM")
        assert replaced == ["EXDEV", "EROFS"]
        assert (listed, text) == (["dev", "proc"], "mine")
        mounts = job.program.mounts
        (top,) = [m for m in mounts if m[4] == "/proc" and _device(m[2]) == device]
        assert "subset=pid" in top[-1] and "hidepid" in top[-1]
        below = {m[4] for m in mounts if m[4].startswith(("/proc/", "/dev/", "/sys"))}
        assert below == {"/dev/shm"}  # nothing is masked, so no mask can be missed
        assert not [m for m in mounts if "/dev/null" in m[3]]


def _device(text: str) -> int:
    return os.makedev(*map(int, text.split(":")))


def test_neither_interpreter_nor_pid_1_can_be_written_to(attacker: Attacker) -> None:
    """PR-04. A script that names /proc/self/exe as its interpreter; descriptors of pid 1's and its
    own program, opened without rights and opened again to write, a thousand times; and libraries in
    the work directory that pid 1 would load. The machine's files are compared."""
    paths = ["/usr/bin/python3", "/bin/sh", os.path.realpath(sys.executable)]
    before = [_digest(path) for path in paths]
    code = (
        "def again(path):\n"
        "    fd = os.open(path, os.O_PATH)\n"
        "    try: os.close(os.open(f'/proc/self/fd/{fd}', os.O_WRONLY))\n"
        "    finally: os.close(fd)\n"
        "pid_1, own = set(), set()\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "paths = ['/proc/self/exe', f'/proc/{child.pid}/exe', sys.executable]\n"
        "for i in range(1000):\n"
        "    pid_1.add(tried(again, '/proc/1/exe'))\n"
        "    own |= {tried(again, p) for p in paths}\n"
        "child.kill(); child.wait()\n"
        "say([sorted(pid_1), sorted(own)])"
    )
    library = b"\x7fELF not a library"
    names = ("libc.so.6", "libseccomp.so.2", "libcap.so.2", "sandbox/__init__.py", "json.py.bak")
    with attacker.held(code, files=dict.fromkeys(names, library)) as job:
        pid_1, own = job.said
        assert pid_1 == ["ENOENT"]
        assert own and set(own) <= {"ETXTBSY", "EROFS", "EACCES"}
        mapped = Path(f"/proc/{job.init.pid}/maps").read_text()
        assert "libc.so" in mapped and "/job/" not in mapped
    evil = b"#!/proc/self/exe\nid -u; grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status\n"
    ran = attacker.sh("chmod +x evil; exec ./evil", files={"evil": evil})
    assert ran.text.split() == ["1000", "CapEff:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"]
    assert before == [_digest(path) for path in paths]


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_there_is_no_sys_and_no_cgroup_to_mount(attacker: Attacker) -> None:
    """PR-08. What of /sys was a way out is looked for, and cgroup file systems of both versions
    mounted with every controller; the release agents of the machine stay as they are."""
    agents = {str(p): p.read_text() for p in Path("/sys/fs/cgroup").glob("*/release_agent")}
    places = ["/sys", "/sys/fs/cgroup", "/sys/kernel/uevent_helper", "/sys/firmware", "/sys/power",
              "/sys/fs/bpf", "/sys/kernel/debug", "/sys/kernel/tracing", "/cgroup", "/dev/cgroup",
              "/run", "/sys/fs/cgroup/release_agent", "/sys/class/net", "/debug"]  # fmt: skip
    code = (
        "n, places = json.loads(sys.argv[1])\n"
        "os.mkdir('c')\n"
        "v1 = ('memory', 'rdma', 'pids', 'cpu', 'devices', 'freezer', 'none,name=x',\n"
        "      'release_agent=/x')\n"
        "say([[p for p in places if os.path.lexists(p)],\n"
        "     [call(n, b'cgroup', b'/job/c', b'cgroup', 0, o.encode()) for o in v1],\n"
        "     [call(n, b'x', b'/job/c', k, 0, b'')\n"
        "      for k in (b'cgroup2', b'sysfs', b'debugfs', b'tracefs', b'bpf', b'securityfs')],\n"
        "     os.listdir('c'), Path('/proc/self/cgroup').read_text().split()])"
    )
    found, first, others, listed, groups = attacker.python(
        code, json.dumps([number("mount"), places])
    ).said
    assert found == []
    assert (first, others, listed) == (["EPERM"] * 8, ["EPERM"] * 6, [])
    assert groups and all(line.endswith(":/") for line in groups)
    assert agents == {str(p): p.read_text() for p in Path("/sys/fs/cgroup").glob("*/release_agent")}


def test_etc_is_made_for_jobs_and_home_is_theirs(attacker: Attacker) -> None:
    """PR-09. All of /etc is listed and compared with the machine's; secrets are looked for; HOME is
    written to."""
    code = (
        "import pwd, grp\n"
        "home = Path(os.environ['HOME'])\n"
        "files = {str(p): p.read_bytes().decode('latin-1') for p in Path('/etc').rglob('*')\n"
        "         if p.is_file() and not p.is_symlink() and p.name in sys.argv[1:]}\n"
        "hidden = ('shadow', 'gshadow', 'sudoers', 'sudoers.d', 'ssh', 'ssl/private', 'ssl',\n"
        "          'resolv.conf', 'machine-id', 'fstab', 'crontab', 'cron.d', 'subuid', 'pam.d',\n"
        "          'security', 'systemd', 'apt', 'environment', 'profile', 'ld.so.preload',\n"
        "          'pip.conf')\n"
        "say([[p.pw_name for p in pwd.getpwall()], pwd.getpwuid(os.getuid()).pw_dir, str(home),\n"
        "     [g.gr_name for g in grp.getgrall()], sorted(os.listdir('/etc')), files,\n"
        "     [n for n in hidden if os.path.lexists('/etc/' + n)],\n"
        "     tried((home / 'x').write_text, 'x'), tried((home / '.cache').mkdir)])"
    )
    ours = ("passwd", "group", "hosts", "hostname", "nsswitch.conf")
    users, entry, home, groups, listed, files, hidden, write, cache = attacker.python(
        code, *ours
    ).said
    assert users == ["root", "sandbox", "nobody"] and groups == ["root", "sandbox", "nogroup"]
    assert entry == home == "/tmp"
    assert (hidden, write, cache) == ([], "ok", "ok")
    assert set(ours) <= set(listed)
    for name in ours:
        assert files[f"/etc/{name}"].encode() != Path(f"/etc/{name}").read_bytes(), name
    # What else there is, is configuration of runtimes, copied from what anybody may read.
    rest = set(listed) - {*ours, "mtab"}
    assert "ld.so.cache" in rest and len(rest) < 30, rest
    assert [name for name in rest if not os.stat(f"/etc/{name}").st_mode & 0o004] == []


def test_timing_is_no_promise_and_the_owner_is_told_so(attacker: Attacker) -> None:
    """PR-12. A job can read the processor's clock as finely as it likes, and counters of events it
    cannot have; that side channels are no promise is written down, and doctor names the machine's
    processor bugs and threads that share a core."""
    code = (
        "steps = []\n"
        "for _ in range(1000):\n"
        "    a = time.perf_counter_ns(); steps.append(time.perf_counter_ns() - a)\n"
        "attr = struct.pack('IIQ', 0, 128, 0) + bytes(112)\n"
        "say([min(steps), call(int(sys.argv[1]), attr, 0, -1, -1, 0)])"
    )
    finest, counters = attacker.python(code, str(number("perf_event_open"))).said
    assert finest < 1_000_000
    assert counters == "EPERM"
    readme = (REPOSITORY / "sandbox/README.md").read_text()
    assert "Secrecy of load" in readme.partition("Not promised")[2]
    told = subprocess.run(
        [sys.executable, "-I", "-m", "sandbox.doctor", "--json"], capture_output=True, check=False
    ).stdout
    names = {finding["name"] for finding in json.loads(told)}
    assert {"processor bugs", "hyperthreads"} <= names, names


def test_a_job_is_shown_its_own_limits(attacker: Attacker) -> None:
    """PR-14. Sizes of file systems, by statfs and df; resource limits; and processors. What lies
    below /usr is the machine's file system, and the only one of it that is shown."""
    code = (
        "sizes = {p: os.statvfs(p) for p in ('/job', '/tmp', '/dev/shm', '/')}\n"
        "df = subprocess.run(['df', '-a', '--output=target'], capture_output=True, text=True)\n"
        "limit = lambda name: resource.getrlimit(getattr(resource, 'RLIMIT_' + name))\n"
        "say([{p: [s.f_blocks * s.f_frsize, s.f_files] for p, s in sizes.items()},\n"
        "     df.stdout.split()[2:], [limit(n) for n in ('FSIZE', 'NOFILE', 'CORE', 'MEMLOCK')],\n"
        "     {m.split()[2] for m in open('/proc/self/mountinfo')} >= {str(0)} or\n"
        "     sorted({m.split()[2] for m in open('/proc/self/mountinfo')}),\n"
        "     len(os.sched_getaffinity(0)),\n"
        "     [f'{os.major(d)}:{os.minor(d)}' for d in (os.stat('/usr').st_dev,)]])"
    )
    limits = Limits()
    with attacker.held(code) as job:
        sizes, targets, rlimits, devices, cpus, usr = job.said
        machines = {m[2] for m in job.program.mounts if not m[2].startswith("0:")}
    for place in ("/job", "/tmp", "/dev/shm"):
        assert sizes[place] == [limits.disk_bytes, limits.inodes], place
    assert sizes["/"][0] < 64 << 20
    assert {t.split("/")[1] for t in targets if t != "/"} <= {
        "job", "usr", "proc", "tmp", "dev", "bin", "sbin", "lib", "lib32", "lib64", "libx32",
    }  # fmt: skip
    assert rlimits[:3] == [[limits.disk_bytes] * 2, [limits.descriptors] * 2, [1, 1]]
    assert machines <= set(usr) and set(devices) >= machines
    assert 1 <= cpus <= (os.cpu_count() or 1)
