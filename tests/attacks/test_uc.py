"""UC: what the kernel counts for a user, and what it shares among all who have /usr. A user
namespace still charges the first to somebody outside; it must be the job's own uid, not root."""

import errno
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from sandbox.locks import MOST
from tests.attacks.arena import HAS_IPV6, Attacker
from tests.attacks.numbers import number
from tests.journeys.server import eventually

# On the machine, as root: how much of what is counted for root can still be had.
LEFT = """
import ctypes, json, os, resource
libc = ctypes.CDLL(None)
resource.setrlimit(resource.RLIMIT_NOFILE, (5000, 5000))
made = 0
while made < 4096 and libc.inotify_init1(0) >= 0:
    made += 1
lines = open("/proc/self/status").read().splitlines()
pending = next(line.split()[1] for line in lines if line.startswith("SigQ"))
print(json.dumps([made, int(pending.split("/")[0])]))
"""


def left() -> tuple[int, int]:
    """(inotify objects that root can make, signals pending of root)."""
    ran = subprocess.run([sys.executable, "-c", LEFT], stdout=subprocess.PIPE, check=True)
    made, pending = json.loads(ran.stdout)
    return made, pending


HOARD = """
watchers = 0
while watchers < 1000 and libc.inotify_init1(0) >= 0:
    watchers += 1
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
queued = 0
while queued < 5000 and libc.sigqueue(os.getpid(), 40, ctypes.c_void_p(0)) == 0:
    queued += 1
timer, timers = ctypes.c_void_p(), 0
while timers < 5000 and libc.timer_create(1, None, ctypes.byref(timer)) == 0:
    timers += 1
say([watchers, queued, timers, status()["SigQ"]])
"""


def test_what_jobs_watch_and_queue_is_counted_for_themselves(attacker: Attacker) -> None:
    """UC-01, UC-02. Three jobs at once (two, where no more can be) take all the inotify objects,
    pending signals and timers that they get; each gets as many as the others, and root has as many
    left as before."""
    together = min(3, attacker.server.get("/stats")["system"]["slots"])
    objects, pending = left()
    assert objects > 24, "root had too few before: nothing would show"
    with ExitStack() as stack:
        jobs = [stack.enter_context(attacker.held(HOARD)) for _ in range(together)]
        assert len(jobs) > 1
        for job in jobs:
            watchers, queued, timers, counted = job.said
            assert (watchers, queued) == (8, 256), job.said
            assert timers == 0 and counted == "256/256", job.said
        now = left()
    # Others use this machine too; two jobs would be 16 objects and 512 signals.
    assert now[0] > objects - 12, (now, objects)
    assert now[1] < pending + 128, (now, pending)


# 65 sockets with 32 labels each: what one user may have, and then some. Says the answers.
LABELS = """
import errno, json, socket, struct
def lease(s, label):
    wish = struct.pack("=16s4sBBHHHI", socket.inet_pton(socket.AF_INET6, "::1"),
                       label.to_bytes(4, "big"), 0, 1, 3, 60, 60, 0)
    try:
        s.setsockopt(41, 32, wish)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
try:
    sockets = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(65)]
except OSError:
    sockets = []
answers = [lease(s, 0x10000 + n * 64 + i) for n, s in enumerate(sockets) for i in range(32)]
print(json.dumps([len(answers), sorted(set(answers))]))
"""


def test_no_label_of_ipv6_is_left_for_the_next_job(attacker: Attacker) -> None:
    """UC-03. Two thousand flow labels, which would outlive the job in its network namespace and of
    which the machine has 4096: none. Outside, one can be had."""
    if not HAS_IPV6:
        assert attacker.python(LABELS).said == [0, []]
        return
    command = ["unshare", "--net", sys.executable, "-c", LABELS]
    count, answers = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert count == 65 * 32 and "ok" in answers, (count, answers)  # what a job is kept from
    for _ in range(2):
        assert attacker.python(LABELS).said == [65 * 32, ["ENOSYS"]]


SPY = """
add, preadv2, fcntl_, fadvise = json.loads(sys.argv[1])
reading = (0x1, 0x10, 0x20, 0x18, 0x21, 0x31, 0xfff, 0x20000020, 0x20000fff, 0x80000020, 0x1000020)
folders = [b"/usr", b"/usr/bin", b"/usr/lib", b"/usr/share", b"/etc", b"/job"]
watch = libc.inotify_init1(os.O_NONBLOCK)
refused = {call(add, watch, folder, mask | bits)
           for folder in folders for mask in reading for bits in (0, 1 << 32, -1 << 32)}
changes = 0xFC6  # what node's fs.watch asks for
allowed = {call(add, watch, folder, changes) for folder in folders}
added = {call(add, watch, folder, 0x20000020) for folder in folders}  # one more bit
Path("/job/own").write_text("x")
seen = len(os.read(watch, 65536)) > 0
fd = os.open("/usr/bin/env", os.O_RDONLY)
folder = os.open("/usr/bin", os.O_RDONLY)
room = ctypes.create_string_buffer(4096)
vector = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(room), 4096))
flags = [call(preadv2, fd, vector, 1, 0, 0, f) for f in (0, 8, 8 | 1 << 32, 0x80, 0x88)]
notify = [call(fcntl_, folder, 1026 | bits, 0x8000003f) for bits in (0, 1 << 32)]
advice = [call(fadvise, fd, 0, 0, a) for a in (4, 4 | 1 << 32)]
def resident(path):
    with open(path, "rb") as file:
        libc.mmap.restype = ctypes.c_void_p
        size = os.path.getsize(path)
        at = ctypes.c_void_p(libc.mmap(None, ctypes.c_size_t(size), 1, 1, file.fileno(), 0))
        pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
        assert libc.mincore(at, ctypes.c_size_t(size), pages) == 0
        return sorted({byte & 1 for byte in pages.raw[:-(-size // mmap.PAGESIZE)]})
say([sorted(refused), sorted(allowed), sorted(added), seen, flags, notify, advice,
     resident(sys.argv[2])])
"""
# Says what it has been told since, when it is ended.
TELLS = """
def tell(*_):
    try: events = len(os.read(watch, 1 << 20))
    except BlockingIOError: events = 0
    say({"events": events})
    signal.pause()  # or the job would be over once it has told
signal.signal(signal.SIGUSR1, tell)
"""


def seldom_read() -> Path:
    """A file of /usr that nobody has in memory, and of more than a few pages."""
    for path in sorted(Path("/usr/share").rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size > 100_000:
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
            if 0 in resident(path):
                return path
    return Path("/usr/bin/env")  # everything is in memory, and stays there


def resident(path: Path) -> list[int]:
    """Which answers mincore gives about its pages here: 0 is out of memory, 1 in it."""
    functions = SPY[SPY.index("def resident") : SPY.index("say([")]
    code = f"import ctypes, json, mmap, os\nlibc = ctypes.CDLL(None)\n{functions}"
    code += f"print(json.dumps(resident({str(path)!r})))"
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    answers: list[int] = json.loads(ran.stdout)
    return answers


def test_nobody_is_told_what_others_read_in_usr(attacker: Attacker) -> None:
    """UC-06. Masks of inotify that tell about reading, in every form; dnotify; what is in memory by
    NOWAIT and mincore; throwing it out. Another job and the machine read meanwhile, and no event
    comes. Changes in one's own folder are told."""
    names = ("inotify_add_watch", "preadv2", "fcntl", "fadvise64")
    path = seldom_read()
    given = (json.dumps([number(name) for name in names]), str(path))
    with attacker.held(SPY + TELLS, *given) as job:
        refused, allowed, added, seen, flags, notify, advice, pages = job.said
        reader = "for p in ('bin', 'lib', 'share'): print(len(os.listdir('/usr/' + p)) > 0)\n"
        assert attacker.python(reader + "subprocess.run(['/usr/bin/env', 'true'])").code == 0
        subprocess.run([shutil.which("env") or "env", "true"], check=True)
        os.kill(job.program.pid, signal.SIGUSR1)
        told = _line(attacker, job.id, 1)
    not_supported = errno.errorcode[errno.EOPNOTSUPP]
    assert refused == ["ENOSYS"]
    assert allowed == ["ok"] and seen
    assert added == ["ENOSYS"]
    assert flags == ["ok"] + [not_supported] * 4
    assert notify == ["ENOSYS"] * 2
    assert advice == ["ENOSYS"] * 2
    assert pages == [1], "it is told that some of a file is not in memory"
    assert told == {"events": 0}


def _line(attacker: Attacker, job: str, number: int) -> object:
    """What the job has said as this line, as soon as it has."""
    assert eventually(lambda: attacker.log(job).count(b"\n") > number, 10), attacker.log(job)
    return json.loads(attacker.log(job).splitlines()[number])


EPOLLS = """
watched, polls, refused = [], [], None
for _ in range(100): watched.append(os.eventfd(0, os.EFD_NONBLOCK))
pairs = 0
try:
    while len(polls) < 120:
        poll = select.epoll()
        polls.append(poll)
        for fd in watched:
            poll.register(fd, select.EPOLLIN)
            pairs += 1
except OSError as error:
    refused = errno.errorcode[error.errno]
for poll in polls: poll.close()
levels, fd, deep = [], watched[0], None
for _ in range(8):
    try:
        poll = select.epoll(); poll.register(fd, select.EPOLLIN | select.EPOLLET)
    except OSError as error:
        deep = errno.errorcode[error.errno]; break
    levels.append(poll); fd = poll.fileno()
crowd = [select.epoll() for _ in range(60)]
for poll in crowd: poll.register(levels[1].fileno(), select.EPOLLIN | select.EPOLLET)
for _ in range(3000): os.eventfd_write(watched[0], 1)
woken = sum(bool(poll.poll(0)) for poll in crowd)
say([pairs, refused, len(levels), deep, woken])
"""


def test_a_crowd_of_epolls_wakes_and_weighs_nobody_else(attacker: Attacker) -> None:
    """UC-07. Twelve thousand watches, epolls in epolls as deep as can be, and a storm of wake-ups
    through sixty of them; meanwhile root watches whatever it likes."""
    limit = Path("/proc/sys/fs/epoll/max_user_watches")
    assert int(limit.read_text()) > 20_000
    with attacker.held(EPOLLS) as job:
        pairs, refused, levels, deep, woken = job.said
        with select.epoll() as ours, ExitStack() as stack:
            for _ in range(100):
                fd = os.eventfd(1, os.EFD_NONBLOCK)
                stack.callback(os.close, fd)
                ours.register(fd, select.EPOLLIN)
            assert len(ours.poll(0, 200)) == 100
    assert pairs == 12_000 or refused in ("ENOSPC", "ENOMEM"), job.said
    assert 3 <= levels <= 6 and deep in ("ELOOP", "EINVAL"), job.said
    assert woken == 60, job.said


PIPES = """
import fcntl
SET, GET = 1031, 1032
held, wide, answer = [], 0, None
try:
    while wide < 500:
        held.append(os.pipe())
        fcntl.fcntl(held[-1][1], SET, 1 << 20)
        wide += 1
except OSError as error:
    answer = errno.errorcode[error.errno]
say([wide, answer, fcntl.fcntl(1, GET), fcntl.fcntl(2, GET)])
"""


def test_the_pages_of_a_jobs_pipes_are_its_own(attacker: Attacker) -> None:
    """UC-08. Two jobs at once widen pipes until they may not: each gets as many as the other, and
    as the next one. The pipes that we make for them have all their room, and so have root's."""
    with attacker.held(PIPES, memory_mb=512) as one, attacker.held(PIPES, memory_mb=512) as two:
        assert one.said == two.said
        wide, answer, *logs = one.said
        assert 0 < wide < 500 and answer in ("EPERM", "EMFILE"), one.said
        assert logs == [1 << 20] * 2
        read, write = os.pipe()
        try:
            assert fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20) == 1 << 20
        finally:
            os.close(read)
            os.close(write)
    assert attacker.python(PIPES, memory_mb=512).said == one.said


# Children that share our descriptors lock ranges and end, sixty of them; says what became of it.
# Then as a thread, which shares them too, and as a child that does not.
ORPHANED = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static long take(int n, int locks) {
    char name[32];
    sprintf(name, "locked%d", n);
    int fd = open(name, O_RDWR | O_CREAT, 0600);
    for (int i = 0; i < locks; i++) {
        struct flock lock = {.l_type = F_WRLCK, .l_start = 2L * i, .l_len = 1};
        if (fcntl(fd, F_SETLK, &lock)) return i;
    }
    return locks;
}
static void *thread(void *at) { *(long *)at = take(100, 9); return 0; }
int main(int argc, char **argv) {
    for (int n = 0; n < argc - 1; n++) {
        unsigned long flags = strtoul(argv[n + 1], 0, 0);
        errno = 0;
        pid_t pid = syscall(SYS_clone, flags, 0, 0, 0, 0);
        if (pid == 0) { take(n, 900); _exit(0); }
        printf("%s\n", pid < 0 ? strerrorname_np(errno) : "done");
        if (pid > 0) while (waitpid(pid, 0, __WALL) < 0 && errno == EINTR);
    }
    long locks = 0;
    pthread_t id;
    if (pthread_create(&id, 0, thread, &locks)) return 1;
    pthread_join(id, 0);
    pid_t pid = fork();
    if (pid == 0) _exit(take(101, 9));
    int status;
    waitpid(pid, &status, 0);
    printf("%ld %d\n", locks, WEXITSTATUS(status));
    fflush(stdout);
    sleep(1);                                   /* the launcher looks ten times a second */
    return 0;
}
"""


def test_locks_that_outlive_their_process_cannot_be_had(attacker: Attacker) -> None:
    """UC-09. Sixty children that share the descriptors of their parent, and no thread of it, would
    leave 54,000 locks under the names of the dead: no form of clone makes one. Threads, which
    share them, and children, which do not, lock as they like."""
    files, thread = 0x400, 0x10000
    child = int(signal.SIGCHLD)
    forms = [
        files | child, files, files | 0x200 | child, files | 0x4000 | child,  # FS, VFORK
        -1 << 32 & (1 << 64) - 1 | files | child,
        files | thread | child,  # no thread without memory and signals in common
    ]  # fmt: skip
    seen = attacker.c(ORPHANED, *map(hex, [*forms, *[files | child] * 60]))
    assert (seen.reason, seen.code) == (None, 0), seen
    *answers, last = seen.text.splitlines()
    assert answers == ["EPERM"] * 5 + ["EINVAL"] + ["EPERM"] * 60, seen
    assert last == "9 9"


LOCKS = """
import fcntl
cpu, count = map(int, sys.argv[1:3])
os.sched_setaffinity(0, {cpu})
for n in range(count):
    if n % 1000 == 0:
        file = open(f"/tmp/locked{n}", "w")
        keep = [*globals().get("keep", ()), file]
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 4 * 10**18 + 2 * n)
say(count)
"""


def test_who_hoards_locks_is_found_behind_those_of_others(attacker: Attacker) -> None:
    """UC-10. Three jobs hold as many locks as one may, with long lines in the kernel's list, on the
    processor that it tells of first; another takes 40,000 on the one that it tells of last, and is
    ended. The three go on: they had no more than they may."""
    cpus = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        for _ in range(3):  # one fewer than two processors have slots
            job = attacker.held(LOCKS, str(cpus[0]), str(MOST), timeout=90)
            assert stack.enter_context(job).said == MOST
        hoarder = attacker.python(LOCKS + "time.sleep(50)", str(cpus[-1]), "40000", timeout=60)
    assert hoarder.reason == "memory", hoarder
    assert attacker.python(LOCKS, str(cpus[-1]), str(MOST)).said == MOST
