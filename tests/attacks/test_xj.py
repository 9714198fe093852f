"""XJ: between jobs. "A" attacks, "B" is somebody else's job, at the same time or after it."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.arena import Attacker
from tests.attacks.checkout import REPOSITORY
from tests.attacks.numbers import number, numbered
from tests.journeys.server import Server

UML = "user mode" in Path("/proc/cpuinfo").read_text().lower()


@pytest.fixture
def other(server: Server) -> Any:
    """A client at another address; gone before the invariants are looked at."""
    other = Attacker(server, "XJ-00")
    yield other
    other.leave()


PLACES = (
    "places = ['/job', '/tmp', '/dev/shm', '/var/tmp', os.environ['HOME'], '.']\n"
    "def search():\n"
    "    found = set()\n"
    "    for top in ('/job', '/tmp', '/dev', '/var', '/etc', '/proc/self/cwd'):\n"
    "        for folder, folders, names in os.walk(top):\n"
    "            found |= {f'{folder}/{n}' for n in folders + names if n.startswith('secret')}\n"
    "    return sorted(found)\n"
)
# Looks, leaves something everywhere, and looks again: the control that looking finds it.
LEAVE = PLACES + (
    "before = search()\n"
    "for place in places:\n"
    "    Path(place, 'secret').write_text('mine')\n"
    "    os.makedirs(f'{place}/secrets/secret2', 0o777, True)\n"
    "os.mkfifo('/tmp/secret-fifo'); os.link('/tmp/secret', '/tmp/secret-link')\n"
    "room = b'secret' * 100000\n"
    "say([before, len(search())])\n"
)


def test_a_job_leaves_nothing_for_another(attacker: Attacker, other: Attacker) -> None:
    """XJ-01. A leaves files, folders, pipes and links wherever it can write, and is still there, or
    has just ended, when B of the same address and of another looks for them."""
    with attacker.held(LEAVE) as first:
        seen = [first.said]
        for client in (attacker, other):
            seen.append(client.python(LEAVE).said)
    for client in (attacker, other, attacker):  # in the places of those before
        seen.append(client.python(LEAVE).said)
    assert [before for before, _ in seen] == [[]] * 6
    assert {after for _, after in seen} == {seen[0][1]} and seen[0][1] > 10


def test_a_job_neither_sees_nor_signals_nor_traces_another(
    attacker: Attacker, other: Attacker
) -> None:
    """XJ-02. B tries A's pids on the machine and all small ones: signals, pidfd, ptrace, its /proc,
    its memory, its priority and limits; and then everybody. A goes on undisturbed."""
    code = (
        "ptrace, readv, *pids = map(int, sys.argv[1:])\n"
        "seen = [[tried(os.kill, p, 0), tried(os.kill, p, 9), tried(os.pidfd_open, p),\n"
        "         call(ptrace, 16, p, 0, 0), call(readv, p, 0, 0, 0, 0, 0),\n"
        "         tried(os.getpriority, os.PRIO_PROCESS, p), tried(os.getpgid, p),\n"
        "         tried(os.sched_getaffinity, p), os.path.lexists(f'/proc/{p}')]\n"
        "        for p in pids]\n"
        "known = [p for p in range(1, 40000) if tried(os.kill, p, 0) == 'ok']\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "everybody = [tried(os.kill, -1, s) for s in (signal.SIGTERM, signal.SIGKILL)]\n"
        "everybody += [tried(os.killpg, p, 9) for p in pids]\n"
        "users = tried(os.getpriority, os.PRIO_USER, 1001)\n"
        "say([seen, known, everybody, users])"
    )
    with attacker.held() as one:
        pids = [one.init.pid, one.program.pid]
        assert min(pids) > 2
        numbers = [number("ptrace"), number("process_vm_readv")]
        seen, known, everybody, users = other.python(code, *map(str, numbers + pids)).said
        missing = ["ESRCH", "ESRCH", "ESRCH", "EPERM", "EPERM", "ESRCH", "ESRCH", "ESRCH", False]
        assert seen == [missing] * 2
        assert known == [1, 2]
        assert everybody[0] in ("ok", "ESRCH") and everybody[2:] == ["ESRCH"] * 2
        assert users in ("ESRCH", "EINVAL")
        assert sorted(one.pids()) == sorted(pids)


def test_shared_memory_is_not_shared_between_jobs(attacker: Attacker, other: Attacker) -> None:
    """XJ-04. A makes a file, a named semaphore and named shared memory and keeps them open; B lists
    /dev/shm, opens each by its name, and makes its own of the same names."""
    code = (
        "import _multiprocessing\n"
        "from multiprocessing import shared_memory, resource_tracker\n"
        "def attach(name): shared_memory.SharedMemory(name).close()\n"
        "before = os.listdir('/dev/shm')\n"
        "libc.sem_open.restype = ctypes.c_void_p\n"
        "def sem(flags): return bool(libc.sem_open(b'/secret', flags, 0o666, 1))\n"
        "found = [tried(attach, 'secret-shm'), sem(0)]\n"
        "block = shared_memory.SharedMemory('secret-shm', create=True, size=4096)\n"
        "block.buf[:6] = b'secret'\n"
        "Path('/dev/shm/x').write_text('x')\n"
        "made = sem(os.O_CREAT | os.O_EXCL)\n"
        "own = [tried(attach, 'secret-shm'), sem(0)]\n"
        "resource_tracker.unregister('/secret-shm', 'shared_memory')\n"
        "say([before, found, made, own, sorted(os.listdir('/dev/shm')),\n"
        "     os.stat('/dev/shm').st_dev])\n"
    )
    with attacker.held(code) as one, other.held(code) as two:
        answers = [one.said, two.said]
        devices = {answer.pop() for answer in answers}
    assert (
        answers
        == [[[], ["ENOENT", False], True, ["ok", True], ["secret-shm", "sem.secret", "x"]]] * 2
    )
    assert len(devices) == 2


def test_names_and_ports_of_two_jobs_do_not_meet(attacker: Attacker, other: Attacker) -> None:
    """XJ-07. Both have the same abstract name, the same ports on all protocols and ask for the same
    System V and POSIX keys, at once."""
    code = (
        "n = json.loads(sys.argv[1])\n"
        "unix = lambda kind: socket.socket(socket.AF_UNIX, kind)\n"
        "reach = [tried(unix(k).connect, '\\0secret%d' % k) for k in (1, 2, 5)]\n"
        "servers = {k: unix(k) for k in (1, 2, 5)}\n"
        "bound = [tried(s.bind, '\\0secret%d' % k) for k, s in servers.items()]\n"
        "for k in (1, 5): servers[k].listen()\n"
        "own = [tried(unix(k).connect, '\\0secret%d' % k) for k in (1, 2, 5)]\n"
        "tcp = [socket.socket() for _ in range(50)]; udp = [socket.socket(2, 2) for _ in tcp]\n"
        "ports = {tried(s.bind, ('0.0.0.0', 4200 + i)) for kind in (tcp, udp)\n"
        "         for i, s in enumerate(kind)}\n"
        "tcp[0].listen()\n"
        "keys = [call(n['shmget'], 42, 4096, 0o1666), call(n['msgget'], 42, 0o1666),\n"
        "        call(n['semget'], 42, 1, 0o1666), call(n['mq_open'], b'secret', 66, 0o666, 0)]\n"
        "across = tried(socket.socket().connect, ('127.0.0.1', 4200))\n"
        "names = Path('/proc/self/net/unix').read_text().count('secret')\n"
        "say([reach, bound, own, sorted(ports), keys, across, names])"
    )
    given = numbered(("shmget", "msgget", "semget", "mq_open"))
    with attacker.held(code, given) as one, other.held(code, given) as two:
        assert one.said == two.said
        reach, bound, own, ports, keys, across, names = two.said
    assert (reach, bound, own) == (["ECONNREFUSED"] * 3, ["ok"] * 3, ["ok"] * 3)
    assert (ports, keys, across) == (["ok"], ["ENOSYS"] * 4, "ENETUNREACH")
    assert names >= 3


# Where a program of the next job would look for what an earlier one has cached.
CACHES = """/usr/lib/python3/dist-packages/evil.pth /usr/local/lib/python3/evil.pth
/usr/lib/python3.11/__pycache__/json.cpython-311.pyc /usr/lib/node_modules/evil.js
/usr/share/fonts/evil /var/cache/fontconfig/evil /var/cache/evil /etc/ld.so.cache /etc/ld.so.preload
/etc/profile.d/evil.sh /etc/environment /etc/python3/debian_config /root/.bashrc /home/evil
/usr/lib/locale/evil /usr/local/bin/python3 /usr/local/bin/sh""".split()
OWN_CACHES = """.cache/pip/evil .cache/fontconfig/evil .cache/go-build/evil .ccache/evil .npm/evil
.node_repl_history .config/evil .bashrc .profile .pythonrc .local/bin/sh .gitconfig .inputrc
node_modules/json/index.js .cache/node/evil .config/matplotlib/evil json.py sitecustomize.py
.local/lib/python3.11/site-packages/evil.pth .local/lib/python3.11/site-packages/sitecustomize.py
""".split()
LOOK = (
    "import site\n"
    "home = os.environ['HOME']\n"
    "state = [sorted(os.listdir(home)), sorted(os.listdir('/job')), sys.path,\n"
    "         site.ENABLE_USER_SITE, sys.dont_write_bytecode, json.__file__,\n"
    "         'sitecustomize' in sys.modules,\n"
    "         dict(os.environ, CANARY=''),\n"
    "         subprocess.run('bash -lc \"echo $PATH; command -v sh python3\"', shell=True,\n"
    "                        capture_output=True, text=True).stdout]\n"
)


def test_no_cache_of_one_job_is_the_next_ones(attacker: Attacker, other: Attacker) -> None:
    """XJ-09. A writes to every cache and start-up file of the system, which is refused, and of its
    home, which works; B, after it and during it, finds what there was before."""
    poison = LOOK + (
        "def put(path):\n"
        "    os.makedirs(os.path.dirname(path), exist_ok=True)\n"
        "    Path(path).write_text('print(\"poisoned\")\\n')\n"
        "system, own = json.loads(sys.argv[1])\n"
        "allowed = {p: a for p in system if (a := tried(put, p)) not in ('EROFS', 'ENOTDIR')}\n"
        "say([state, allowed,\n"
        "     sorted({tried(put, f'{p}/{name}') for p in (home, '/job') for name in own}),\n"
        "     [p for p in ('/env', '/environments', '/cache', '/var/cache', '/opt', '/srv',\n"
        "                  '/home', '/root') if os.path.lexists(p)]])"
    )
    before = other.python(LOOK + "say(state)").said
    with attacker.held(poison, json.dumps([CACHES, OWN_CACHES])) as one:
        state, allowed, own, places = one.said
        during = other.python(LOOK + "say(state)").said
    after = [client.python(LOOK + "say(state)").said for client in (attacker, other)]
    clean = [_without_names(one) for one in (before, state, during, *after)]
    assert clean == [clean[0]] * 5
    assert allowed == {} and own == ["ok"]
    assert places == []


def _without_names(state: list[Any]) -> list[Any]:
    """The state but for the canary's file, which has another name for each client."""
    home, job, *rest = state
    return [home, [name for name in job if not name.startswith("CNRY-")], *rest]


def test_a_job_that_takes_all_it_can_takes_nothing_from_another(
    attacker: Attacker, other: Attacker
) -> None:
    """XJ-10. A takes all tasks, descriptors, ports, watches, pipe buffers, pending signals, locks
    and files that it gets, and stays; B gets as many of each (HI6: and so does a neighbour)."""
    code = (
        "import fcntl, threading\n"
        "counts = {}\n"
        "def count(name, do, most=5000):\n"
        "    counts[name] = 0\n"
        "    try:\n"
        "        while counts[name] < most: do(); counts[name] += 1\n"
        "    except (OSError, RuntimeError, ValueError): pass\n"
        "kept = []\n"
        "def inotify():\n"
        "    fd = libc.inotify_init1(0)\n"
        "    if fd < 0: raise OSError\n"
        "    kept.append(fd)\n"
        "def watch():\n"
        "    path = f'/tmp/w{counts[\"watches\"]}'; Path(path).touch()\n"
        "    if libc.inotify_add_watch(kept[0], path.encode(), 2) < 0: raise OSError\n"
        "libc.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]\n"
        "def pend():\n"
        "    if libc.sigqueue(os.getpid(), 40, None): raise OSError\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [40])\n"
        "def port():\n"
        "    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); kept.append(s)\n"
        "    s.bind(('0.0.0.0', 30000 + counts['ports']))\n"
        "def pipe():\n"
        "    r, w = os.pipe(); kept.extend((r, w))\n"
        "    fcntl.fcntl(w, 1031, 1 << 20)\n"
        "def inode(): os.close(os.open(f'/tmp/i{counts[\"inodes\"]}', os.O_CREAT))\n"
        "def task():\n"
        "    pid = os.fork()\n"
        "    if pid == 0: signal.pause()\n"
        "count('inotify', inotify)\n"
        "count('watches', watch)\n"
        "count('signals', pend)\n"
        "count('pipes', pipe, 20)\n"
        "count('ports', port, 100)\n"
        "count('inodes', inode, 3000)\n"
        "space = open('/tmp/space', 'wb', 0)\n"
        "count('megabytes', lambda: space.write(bytes(1 << 20)) == 1 << 20 or int('x'), 200)\n"
        "count('tasks', task)\n"
        "count('descriptors', lambda: kept.append(os.dup(1)))\n"
        "say(counts)"
    )
    with attacker.held(code) as one, other.held(code) as two:
        assert one.said == two.said
        counts = two.said
        tasks = [len(job.pids()) for job in (one, two)]
    assert counts["inotify"] == 8 and 0 < counts["watches"] <= 512
    assert 0 < counts["signals"] <= 256 and counts["ports"] == 100
    assert 50 < counts["megabytes"] <= 100 and counts["inodes"] == 3000
    assert 10 < counts["tasks"] < 32 and counts["descriptors"] > 10
    # Between the two, one of the machine's own limits (pipe-user-pages-soft) may have been met.
    assert counts["pipes"] > 0
    assert tasks == [tasks[0]] * 2 and tasks[0] <= 33


def test_what_others_read_is_told_by_timing_only_and_that_is_no_promise(
    attacker: Attacker,
) -> None:
    """XJ-11. It asks the kernel which pages of the machine's files are in memory, reads without
    waiting, throws them out, and watches them being opened; none of it tells. What the clock tells
    is no promise, and the README says so."""
    code = (
        "n = json.loads(sys.argv[1])\n"
        "path = '/usr/bin/python3'\n"
        "fd = os.open(path, os.O_RDONLY); size = os.fstat(fd).st_size // 4096 * 4096\n"
        "libc.mmap.restype = ctypes.c_void_p\n"
        "size_t, long = ctypes.c_size_t, ctypes.c_long\n"
        "libc.mmap.argtypes = [ctypes.c_void_p, size_t] + [ctypes.c_int] * 3 + [long]\n"
        "at = libc.mmap(None, size, 1, 1, fd, 0)\n"
        "pages = ctypes.create_string_buffer(size // 4096)\n"
        "asked = call(n['mincore'], at, size, pages)\n"
        "resident = set(pages.raw) if asked == 'ok' else {1}\n"
        "room = ctypes.create_string_buffer(4096)\n"
        "vector = struct.pack('QQ', ctypes.addressof(room), 4096)\n"
        "nowait = call(n['preadv2'], fd, vector, 1, 0, 0, 8)\n"
        "watch = libc.inotify_init1(0o4000)\n"
        "watched = [call(n['inotify_add_watch'], watch, b'/usr/bin', m) for m in (1, 0x20, 0x10)]\n"
        "say([sorted(resident), nowait, call(n['fadvise64'], fd, 0, 0, 4), watched,\n"
        "     call(451, fd, bytes(16), bytes(40), 0),\n"
        "     [tried(os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_WILLNEED)]])"
    )
    names = ("mincore", "preadv2", "fadvise64", "inotify_add_watch")
    resident, nowait, dropped, watched, cachestat, control = attacker.python(
        code, numbered(names)
    ).said
    assert resident == [1], "of files that are not its own the kernel says: all"
    assert nowait == errno.errorcode[errno.EOPNOTSUPP]  # one of two names
    assert (dropped, cachestat) == ("ENOSYS", "ENOSYS")
    assert watched == ["ENOSYS"] * 3
    assert control == ["ok"]
    readme = (REPOSITORY / "sandbox/README.md").read_text()
    assert "Secrecy of load" in readme.partition("Not promised")[2]


def test_the_layout_of_memory_is_another_in_every_job(attacker: Attacker) -> None:
    """XJ-12. Addresses of libc, stack, heap and the program, the kernel's random bytes for it, and
    the seed of hashes, in two jobs at once and one after them."""
    code = (
        "maps = Path('/proc/self/maps').read_text().splitlines()\n"
        "start = lambda word: next(m.split('-')[0] for m in maps if m.endswith(word))\n"
        "libc.getauxval.restype = ctypes.c_void_p\n"
        "random = ctypes.string_at(libc.getauxval(25), 16).hex()\n"
        "say([start('libc.so.6'), start('[stack]'), start('[heap]'), random, hash('sandrun')])"
    )
    with attacker.held(code) as one, attacker.held(code) as two:
        layouts = [one.said, two.said]
    layouts.append(attacker.python(code).said)
    different = [len(set(addresses)) > 1 for addresses in zip(*layouts, strict=True)]
    # User-mode Linux moves the stack only.
    assert different == ([False, True, False, True, True] if UML else [True] * 5)
