"""SC: system calls and kernel surface. What is expected is written here, by the catalogue, and not
read from sandbox/policy.py; that file says only which numbers remain."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from sandbox import linux, policy
from tests.attacks.arena import HAS_IPV6, Attacker, compiled
from tests.attacks.numbers import number, numbered
from tests.journeys.server import Server, eventually

UNSUPPORTED = errno.errorcode[errno.EOPNOTSUPP]  # one of two names

# What is denied and how, by the case that it belongs to.
DENIED = {
    "SC-01": {"EPERM": "setns unshare", "ENOSYS": "clone3"},
    "SC-02": {
        "EPERM": "mount umount2 pivot_root chroot",
        "ENOSYS": "open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr statmount "
        "listmount open_tree_attr",
    },
    "SC-04": {
        "EPERM": "bpf perf_event_open init_module finit_module delete_module kexec_load swapon "
        "swapoff reboot acct settimeofday clock_settime adjtimex sethostname setdomainname",
        "ENOSYS": "userfaultfd kexec_file_load iopl ioperm quotactl quotactl_fd lookup_dcookie "
        "vhangup nfsservctl sync syncfs clock_adjtime",
    },
    "SC-05": {"ENOSYS": "io_uring_setup io_uring_enter io_uring_register"},
    "SC-06": {"ENOSYS": "keyctl add_key request_key"},
    "SC-07": {
        "EPERM": "ptrace process_vm_readv process_vm_writev",
        "ENOSYS": "kcmp pidfd_getfd process_madvise process_mrelease",
    },
    "SC-12": {"ENOSYS": "splice tee vmsplice"},
    "SC-13": {"ENOSYS": "name_to_handle_at open_by_handle_at"},
    "SC-14": {"ENOSYS": "personality"},
    "SC-18": {"ENOSYS": "seccomp"},
    "SC-20": {"ENOSYS": "io_setup io_submit io_getevents io_destroy io_cancel"},
    "SC-21": {
        "ENOSYS": "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr shmget "
        "shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl",
    },
    "SC-22": {"ENOSYS": "fanotify_init fanotify_mark"},
    "SC-23": {"ENOSYS": "syslog"},
    "SC-24": {
        "ENOSYS": "sched_setscheduler sched_setparam sched_setattr ioprio_set migrate_pages "
        "move_pages mbind set_mempolicy",
    },
    "SC-26": {
        "ENOSYS": "modify_ldt memfd_secret landlock_create_ruleset landlock_add_rule "
        "landlock_restrict_self lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal "
        "cachestat map_shadow_stack openat2",
    },
    "SC-13 by attributes": {
        UNSUPPORTED: "setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr",
    },
}  # fmt: skip
EXPECTED = {
    name: answer
    for groups in DENIED.values()
    for answer, names in groups.items()
    for name in names.split()
    if number(name) >= 0
}


def test_every_denied_call_answers_as_it_should(attacker: Attacker) -> None:
    """SC-01, SC-02, SC-04, SC-05, SC-06, SC-07, SC-12, SC-13, SC-14, SC-18, SC-20, SC-21, SC-22,
    SC-23, SC-24, SC-26. Each is called by its number, with zeros and with ones."""
    code = (
        "say({name: [call(n, *[v] * 6) for v in (0, -1)]\n"
        "     for name, n in json.loads(sys.argv[1]).items()})"
    )
    answers = attacker.python(code, numbered(EXPECTED), timeout=60).said
    assert len(answers) > 90
    assert answers == {name: [answer] * 2 for name, answer in EXPECTED.items()}


def test_without_the_filter_the_kernel_would_do_most_of_them() -> None:
    """SC-02, SC-05, SC-06, SC-20, SC-21, SC-26. The control: the same calls, out here, as nobody
    and in namespaces that go with the caller. A kernel that had none of them would make the answers
    inside worth nothing."""
    skipped = {"seccomp", "ptrace", "vhangup"}  # would end or trace the caller, whoever it is
    names = sorted(set(EXPECTED) - skipped)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            linux.unshare(linux.CLONE_NEWIPC | linux.CLONE_NEWNS | linux.CLONE_NEWUTS)
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.write(write, json.dumps([_known(name) for name in names]).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as pipe:
        known = dict(zip(names, json.loads(pipe.read()), strict=True))
    assert os.waitpid(child, 0)[1] == 0
    unknown = {name for name, is_known in known.items() if not is_known}
    assert len(unknown) < len(names) / 2, unknown
    assert not unknown & {"mount", "unshare", "splice", "name_to_handle_at", "personality"}


def _known(name: str) -> bool:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    answer = libc.syscall(ctypes.c_long(number(name)), *[ctypes.c_long(-1)] * 6)
    return bool(answer >= 0 or ctypes.get_errno() != errno.ENOSYS)


def test_every_number_that_the_policy_does_not_name_is_enosys(attacker: Attacker) -> None:
    """SC-26, SC-04. All numbers up to 1000, some around the ends of the number's type, and all
    of the second ABI of x86-64 that shares the entry."""
    named = {*policy.ALLOWED, *(name for names in policy.DENIED.values() for name in names)}
    assert not named & {name for name, answer in EXPECTED.items() if answer == "ENOSYS"}
    # Linux lets its own trampolines of probes pass every filter; elsewhere they end in SIGILL.
    numbers = sorted(set(range(1000)) - {number(name) for name in named} - {335, 336})
    x32 = [0x40000000 | n for n in range(600)] if os.uname().machine == "x86_64" else []
    odd = [*x32, -1, -100, 2**31 - 1, 2**31, 2**32, 2**63 - 1]
    code = (
        "numbers = json.loads(Path('numbers').read_text())\n"
        "found = [call(n, 0, 0, 0, 0, 0, 0) for n in numbers]\n"
        "say([len(found), [n for n, answer in zip(numbers, found) if answer != 'ENOSYS']])"
    )
    assert len(numbers) > 650
    numbers += [n for n in odd if n != 2**32]  # whose low half is read(0), which is allowed
    files = {"numbers": json.dumps(numbers).encode()}
    assert attacker.python(code, files=files, timeout=60).said == [len(numbers), []]


def test_nothing_can_be_mounted(attacker: Attacker) -> None:
    """SC-02. With arguments that would work for who may: a tmpfs, a bind, a cgroup; taking mounts
    away; the same by the new calls; and the programs for it."""
    code = (
        "n = json.loads(sys.argv[1])\n"
        "tree = lambda *a: call(n['open_tree'], -100, *a)\n"
        "run = lambda *a: subprocess.run(a, capture_output=True).returncode != 0\n"
        "say([[call(n['mount'], b'none', b'/tmp', kind, 0, b'')\n"
        "      for kind in (b'tmpfs', b'proc', b'sysfs', b'cgroup', b'cgroup2', b'bpf')],\n"
        "     call(n['mount'], b'/usr', b'/tmp', b'', 4096, b''),\n"
        "     [call(n['umount2'], p, f) for p in (b'/job', b'/proc', b'/tmp')\n"
        "      for f in (0, 2, 8)],\n"
        "     call(n['pivot_root'], b'/tmp', b'/tmp'), call(n['chroot'], b'/tmp'),\n"
        "     [tree(b'/usr', 1), tree(b'/', 0x80001), tree(b'/tmp', 0)],\n"
        "     call(n['fsopen'], b'tmpfs', 0), call(n['fspick'], -100, b'/tmp', 0),\n"
        "     call(n['mount_setattr'], -100, b'/usr', 0x8000, bytes(32), 32),\n"
        "     call(n['move_mount'], -100, b'/tmp', -100, b'/job', 0),\n"
        "     [run('mount', '-t', 'tmpfs', 'none', '/tmp'),\n"
        "      run('mount', '-o', 'remount,rw', '/'),\n"
        "      run('umount', '-l', '/tmp'),\n"
        "      run('/usr/sbin/chroot', '/tmp', '/bin/true')],\n"
        "     len(Path('/proc/self/mountinfo').read_text().splitlines())])"
    )
    names = "mount umount2 pivot_root chroot open_tree fsopen fspick mount_setattr move_mount"
    with attacker.held(code, numbered(names.split())) as job:
        assert job.said == [
            ["EPERM"] * 6, "EPERM", ["EPERM"] * 9, "EPERM", "EPERM", ["ENOSYS"] * 3,
            *["ENOSYS"] * 4, [True] * 4, len(job.init.mounts),
        ]  # fmt: skip


def test_io_uring_is_not_there_and_node_does_without(attacker: Attacker) -> None:
    """SC-05. A ring is asked for with good arguments; then Node reads, writes, watches and starts
    a thread and a child."""
    code = "say([call(425, n, ctypes.create_string_buffer(120)) for n in (1, 8, 4096)])"
    assert attacker.python(code).said == ["ENOSYS"] * 3
    script = b"""
    const { Worker } = require('worker_threads');
    const { execFileSync } = require('child_process');
    const fs = require('fs');
    (async () => {
        await fs.promises.writeFile('x', 'y');
        const read = await fs.promises.readFile('x', 'utf8');
        const code = "require('worker_threads').parentPort.postMessage(6 * 7)";
        new Worker(code, { eval: true }).on('message', n => console.log(JSON.stringify(
            [read, n, execFileSync('echo', ['hi']).toString()])));
    })();
    """
    assert attacker.run({"index.js": script}, interpreter="node").said == ["y", 42, "hi\n"]


def test_there_are_no_keyrings(attacker: Attacker) -> None:
    """SC-06. Rings of thread, process, session and user are asked for; keys of all kinds made."""
    code = (
        "keyctl, add, request = map(int, sys.argv[1:])\n"
        "say([{call(keyctl, 0, ring, create) for ring in range(-8, 0) for create in (0, 1)} |\n"
        "     {call(keyctl, op, 0, 0, 0, 0) for op in range(40)} |\n"
        "     {call(add, kind, b'name', b'data', 4, ring) for ring in range(-8, 0)\n"
        "      for kind in (b'user', b'keyring', b'big_key', b'asymmetric', b'logon')} |\n"
        "     {call(request, b'user', b'name', b'', -4)} == {'ENOSYS'},\n"
        "     [os.path.exists(f'/proc/{f}') for f in ('keys', 'key-users')]])"
    )
    numbers = [str(number(name)) for name in ("keyctl", "add_key", "request_key")]
    assert attacker.python(code, *numbers).said == [True, [False, False]]


def test_no_process_can_be_traced_or_read(attacker: Attacker) -> None:
    """SC-07. pid 1, its own child, which agrees to it, and itself; by ptrace, by process_vm, by
    descriptors and comparisons, and with prctl's permission."""
    code = (
        "n = json.loads(sys.argv[1])\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    libc.prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0); signal.pause()\n"
        "room = ctypes.create_string_buffer(64)\n"
        "vector = struct.pack('QQ', ctypes.addressof(room), 8)\n"
        "pids = (1, child, os.getpid())\n"
        "fds = [os.pidfd_open(pid) for pid in pids]\n"
        "here, me = ctypes.addressof(room), os.getpid()\n"
        "answers = {\n"
        "    'trace me': [call(n['ptrace'], 0, 0, 0, 0)],\n"
        "    'ptrace': [call(n['ptrace'], how, p, 0, 0) for how in (16, 0x4206) for p in pids],\n"
        "    'readv': [call(n['process_vm_readv'], p, vector, 1, vector, 1, 0) for p in pids],\n"
        "    'writev': [call(n['process_vm_writev'], p, vector, 1, vector, 1, 0) for p in pids],\n"
        "    'kcmp': [call(n['kcmp'], p, me, kind, 0, 0) for p in pids for kind in range(8)],\n"
        "    'getfd': [call(438, fd, 0, 0) for fd in fds],\n"
        "    'madvise': [call(440, fd, vector, 1, 4, 0) for fd in fds],\n"
        "    'mrelease': [call(448, fd, 0) for fd in fds],\n"
        "    'robust list': [call(n['get_robust_list'], 1, here, here + 8)]}\n"
        "os.kill(child, signal.SIGKILL); os.wait()\n"
        "say(answers)"
    )
    names = "ptrace process_vm_readv process_vm_writev kcmp get_robust_list"
    answers = attacker.python(code, numbered(names.split())).said
    assert answers == {
        "trace me": ["EPERM"], "ptrace": ["EPERM"] * 6, "readv": ["EPERM"] * 3,
        "writev": ["EPERM"] * 3, "kcmp": ["ENOSYS"] * 24, "getfd": ["ENOSYS"] * 3,
        "madvise": ["ENOSYS"] * 3, "mrelease": ["ENOSYS"] * 3, "robust list": ["ENOSYS"],
    }  # fmt: skip


# TIOCSTI, TIOCLINUX, TIOCSCTTY, TIOCCONS, TIOCNOTTY, TIOCSETD, TIOCGDEV, TIOCGPTPEER, SIOCSIFFLAGS,
# SIOCSIFADDR, SIOCSIFNAME, SIOCSIFHWADDR, SIOCBRADDBR, SIOCADDRT, FIOASYNC, FIBMAP, FIGETBSZ,
# FICLONE, FICLONERANGE, FIDEDUPERANGE, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR,
# FS_IOC_ENABLE_VERITY, FS_IOC_ADD_ENCRYPTION_KEY, FIFREEZE, FITHAW, FITRIM, NS_GET_USERNS,
# NS_GET_PARENT, BLKROSET, KVM_CREATE_VM, PERF_EVENT_IOC_ENABLE, UFFDIO_API, SECCOMP_NOTIF_RECV
TELLING = (
    0x5412, 0x541C, 0x540E, 0x541D, 0x5422, 0x5423, 0x80045432, 0x5441, 0x8914,
    0x8916, 0x8923, 0x8924, 0x89A0, 0x890B, 0x5452, 0x1, 0x2,
    0x40049409, 0x4020940D, 0xC0189436, 0x80086601, 0x40086602, 0x401C5820,
    0x40806685, 0xC0506617, 0xC0045877, 0xC0045878, 0xC0185879, 0xB701,
    0xB702, 0x125D, 0xAE01, 0x2400, 0xC018AA3F, 0xC0502100,
)  # fmt: skip
UPPER = 1 << 32


def test_ioctls_ask_and_set_what_is_the_descriptors_own_and_nothing_more(
    attacker: Attacker,
) -> None:
    """SC-11. Some thirty requests on every descriptor of the job and on one of every kind that it
    can make; with upper bits set, which the kernel does not read; and those that programs need."""
    code = (
        "import array, fcntl, termios\n"
        "ioctl, upper, *requests = json.loads(sys.argv[1])\n"
        "read, write = os.pipe(); os.write(write, b'12345')\n"
        "fds = [0, 1, 2, read, os.open('file', os.O_CREAT | os.O_RDWR), os.open('/usr', 0),\n"
        "       os.open('/dev/null', 2), os.open('/proc/self/ns/user', 0), os.memfd_create('m'),\n"
        "       *(s.detach() for s in socket.socketpair()), socket.socket().detach(),\n"
        "       os.pidfd_open(os.getpid()), os.open('/job', 0), libc.inotify_init1(0)]\n"
        "room = ctypes.create_string_buffer(4096)\n"
        "wrong = [[fd, hex(r), a] for fd in fds for r in requests for bits in (0, upper)\n"
        "         if (a := call(ioctl, fd, r | bits, room)) != 'ENOSYS']\n"
        "waiting = array.array('i', [0]); fcntl.ioctl(read, termios.FIONREAD, waiting)\n"
        "more = call(ioctl, read, termios.FIONREAD | upper, room), room.raw[0]\n"
        "say([wrong, len(fds), waiting[0], more, os.isatty(1),\n"
        "     tried(fcntl.ioctl, 1, termios.TIOCGWINSZ, bytes(8)),\n"
        "     tried(fcntl.ioctl, 1, termios.TCGETS, bytes(60)),\n"
        "     tried(os.set_inheritable, read, True), tried(os.set_blocking, read, False),\n"
        "     tried(fcntl.ioctl, read, termios.FIONBIO, array.array('i', [1])),\n"
        "     tried(fcntl.ioctl, read, termios.FIOCLEX)])"
    )
    assert attacker.python(code, json.dumps([number("ioctl"), UPPER, *TELLING])).said == [
        [], 15, 5, ["ok", 5], False, "ENOTTY", "ENOTTY", "ok", "ok", "ok", "ok",
    ]  # fmt: skip


def test_upper_bits_of_an_argument_do_not_slip_past_the_filter(attacker: Attacker) -> None:
    """SC-01, SC-11, SC-18, SC-27. The kernel reads 32 bits of these arguments, a filter may read
    64: families, options and flags that are denied, with bits beyond; and one that is allowed."""
    denied = {
        "socket": (number("socket"), 16 | UPPER, 3, 0),  # AF_NETLINK
        "type": (number("socket"), 2, 3 | UPPER, 1),  # SOCK_RAW
        "socketpair": (number("socketpair"), 16 | UPPER, 3, 0, 0),
        "prctl": (number("prctl"), 22 | UPPER, 2, 0, 0, 0),  # PR_SET_SECCOMP
        "clone": (number("clone"), 0x10000000 | UPPER | signal.SIGCHLD, 0, 0, 0, 0),
        "unshare": (number("unshare"), 0x10000000 | UPPER),
        "mount flags": (number("mount"), 0, 0, 0, 4096 | UPPER, 0),
        "number": (number("keyctl") | UPPER, 0, -3, 0),
    }
    code = (
        "answers = {name: call(*args) for name, args in json.loads(sys.argv[1]).items()}\n"
        "answers['allowed'] = call(int(sys.argv[2]), 2 | 1 << 32, 1, 0)\n"
        "say(answers)"
    )
    answers = attacker.python(code, json.dumps(denied), str(number("socket"))).said
    assert answers.pop("allowed") == "ok"
    permitted = dict.fromkeys(("type", "clone", "unshare", "mount flags"), "EPERM")
    assert answers == dict.fromkeys(denied, "ENOSYS") | permitted


def test_files_are_copied_without_splice(attacker: Attacker) -> None:
    """SC-12. splice, tee and vmsplice between pipes that are ready for them; and a megabyte copied
    by shutil, cp, cat and sendfile."""
    code = (
        "import shutil\n"
        "splice, tee, vmsplice = map(int, sys.argv[1:])\n"
        "(a, b), (c, d) = os.pipe(), os.pipe(); os.write(b, b'x' * 100)\n"
        "file = os.open('/usr/bin/env', 0)\n"
        "room = ctypes.create_string_buffer(4096)\n"
        "vector = struct.pack('QQ', ctypes.addressof(room), 4096)\n"
        "answers = [call(splice, file, 0, d, 0, 1, 0), call(splice, a, 0, d, 0, 9, 0),\n"
        "           call(tee, a, d, 9, 0), call(vmsplice, d, vector, 1, 0)]\n"
        "data = os.urandom(1 << 20); Path('a').write_bytes(data); shutil.copy('a', 'b')\n"
        "subprocess.run('cp a c; cat a > d; cat a | cat > e', shell=True, check=True)\n"
        "with open('a') as source, open('f', 'w') as target:\n"
        "    while os.sendfile(target.fileno(), source.fileno(), None, 1 << 20): pass\n"
        "say([answers, [Path(name).read_bytes() == data for name in 'bcdef']])"
    )
    numbers = [str(number(name)) for name in ("splice", "tee", "vmsplice")]
    assert attacker.python(code, *numbers).said == [["ENOSYS"] * 4, [True] * 5]


def test_no_file_can_be_opened_by_its_inode(attacker: Attacker) -> None:
    """SC-13. Handles are asked for, and those of the first inodes guessed, at every mount."""
    code = (
        "name, open_ = map(int, sys.argv[1:])\n"
        "answers = set(); count = 0\n"
        "for place in ('/', '/usr', '/job', '/proc', '/dev/null'):\n"
        "    handle = ctypes.create_string_buffer(struct.pack('Ii', 128, 0), 136)\n"
        "    answers.add(call(name, -100, place.encode(), handle, bytes(4), 0))\n"
        "    fd = os.open(place, 0)\n"
        "    for inode in range(300):\n"
        "        for kind, size in ((1, 8), (2, 12), (0x81, 8), (0xfe, 16)):\n"
        "            guess = struct.pack('IiQQ', size, kind, inode, 0)\n"
        "            answers.add(call(open_, fd, guess, 0)); count += 1\n"
        "say([list(answers), count])"
    )
    numbers = [str(number(n)) for n in ("name_to_handle_at", "open_by_handle_at")]
    assert attacker.python(code, *numbers).said == [["ENOSYS"], 6000]


def test_a_personality_cannot_be_taken(attacker: Attacker) -> None:
    """SC-14. Addresses without randomness, memory that is executable by being readable, and what
    makes the kernel an older one; by the call and by setarch."""
    code = (
        "n = int(sys.argv[1])\n"
        "flags = (0x40000, 0x400000, 0x440000, 0x20000, 0x8, 0x100000, 0, 0xffffffff)\n"
        "run = lambda *a: subprocess.run(a, capture_output=True, text=True)\n"
        "seen = {run(sys.executable, '-c', 'import os; print(open(\"/proc/self/maps\").read())')\n"
        "        .stdout.split('[stack]')[0].splitlines()[-1].split('-')[0] for _ in range(4)}\n"
        "say([[call(n, f) for f in flags], run('setarch', '-R', 'true').returncode != 0,\n"
        "     len(seen), os.uname().release])"
    )
    answers, failed, layouts, release = attacker.python(code, str(number("personality"))).said
    assert (answers, failed) == (["ENOSYS"] * 8, True)
    assert layouts > 1
    assert release == os.uname().release


# Tries what is denied in one way each, from wherever it is started: prints the errnos.
BATTERY = r"""
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <sys/syscall.h>
static void *look(void *where) {
    long n[] = {SYS_unshare, SYS_splice, SYS_keyctl, SYS_ptrace, SYS_mount, SYS_bpf, 425, 435};
    char line[200] = "";
    for (unsigned i = 0; i < sizeof n / sizeof *n; i++) {
        errno = 0;
        syscall(n[i], 0, 0, 0, 0, 0, 0);
        sprintf(line + strlen(line), "%d ", errno);
    }
    printf("%s: %s\n", (char *)where, line);
    fflush(stdout);
    return 0;
}
static char **again;
static void *execute(void *next) {
    again[1] = next;
    execv("/proc/self/exe", again);
    perror("execv");
    exit(1);
}
int main(int argc, char **argv) {
    pthread_t thread;
    int depth = argc > 1 ? atoi(argv[1]) : 0;
    char name[20], next[20];
    sprintf(name, "main %d", depth);
    sprintf(next, "%d", depth + 1);
    look(name);
    pthread_create(&thread, 0, look, "thread");
    pthread_join(thread, 0);
    if (fork() == 0) { look("fork"); _exit(0); }
    wait(0);
    if (vfork() == 0) { look("vfork"); _exit(0); }
    wait(0);
    if (depth == 5) return 0;
    again = (char *[]){"probe", 0, 0};
    pthread_create(&thread, 0, execute, next);     /* a thread other than the main one executes */
    pthread_join(thread, 0);
    return 1;
}
"""


def test_the_filter_is_the_same_wherever_a_program_comes_from(attacker: Attacker) -> None:
    """SC-17. Eight calls from main, a thread, a fork and a vfork, through five execs that threads
    make; and all of that once more by a program that lies in a memfd."""
    code = (
        "fd = os.memfd_create('program')\n"
        "os.write(fd, Path('probe').read_bytes())\n"
        "Path('probe').chmod(0o755)\n"
        "run = lambda path: subprocess.run([path], pass_fds=[fd], capture_output=True, text=True)\n"
        "say([(run(path).stdout, run(path).returncode)\n"
        "     for path in ('./probe', f'/proc/self/fd/{fd}')])"
    )
    ran = attacker.python(code, files={"probe": compiled(BATTERY)}).said
    e, n = errno.EPERM, errno.ENOSYS
    expected = " ".join(map(str, (e, n, n, e, e, e, n, n)))
    for text, exit_code in ran:
        places = [line.split(": ") for line in text.splitlines()]
        assert exit_code == 0 and len(places) == 24, (exit_code, text)
        assert {answers.strip() for _, answers in places} == {expected}, text
        assert sum(where.startswith("main") for where, _ in places) == 6


# Numbers are chosen so that, read as a native call, they are not allowed either: user-mode Linux
# takes a 32-bit call for a 64-bit one.
ABI = r"""
#include <stdio.h>
static long compat(long number) {
    long answer = number;
    __asm__ volatile("int $0x80" : "+a"(answer) : "b"(0), "c"(0), "d"(0), "S"(0), "D"(0)
                     : "r8", "r9", "r10", "r11", "memory");
    return answer;
}
static long native(long number) {
    long answer;
    __asm__ volatile("syscall" : "=a"(answer) : "a"(number), "D"(0), "S"(0), "d"(0)
                     : "rcx", "r11", "memory");
    return answer;
}
int main(void) {
    long x32 = 0x40000000;
    printf("[%ld, %ld, %ld, %ld, %ld]\n", native(110),        /* getppid */
           compat(64), native(x32 | 110),                     /* getppid */
           native(x32 | 272), native(x32 | 520));             /* unshare, execve of x32 */
    return 0;
}
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs the ABIs of x86-64")
def test_calls_of_other_architectures_are_enosys(attacker: Attacker) -> None:
    """SC-17. By the 32-bit door and by the numbers of x32, calls that are allowed by the native
    one."""
    seen = attacker.c(ABI)
    assert json.loads(seen.text)[0] > 0
    assert json.loads(seen.text)[1:] == [-errno.ENOSYS] * 4


def test_a_job_can_put_no_filter_over_itself(attacker: Attacker) -> None:
    """SC-18. A program that allows everything, by seccomp with every flag and by prctl, until the
    kernel would have had enough; a listener; and then the calls that it should have allowed."""
    code = (
        "seccomp, prctl, keyctl = map(int, sys.argv[1:])\n"
        "rule = struct.pack('HBBI', 6, 0, 0, 0x7fff0000)\n"
        "room = ctypes.create_string_buffer(rule)\n"
        "prog = struct.pack('HxxxxxxQ', 1, ctypes.addressof(room))\n"
        "answers = {call(seccomp, 1, flags, prog) for flags in range(64) for _ in range(100)}\n"
        "answers |= {call(prctl, 22, mode, prog, 0, 0) for mode in (1, 2) for _ in range(100)}\n"
        "answers |= {call(seccomp, op, 0, 0) for op in range(2, 6)}\n"
        "say([list(answers), status().get('Seccomp_filters', '1'), call(keyctl, 0, -3, 0)])"
    )
    numbers = [str(number(n)) for n in ("seccomp", "prctl", "keyctl")]
    assert attacker.python(code, *numbers).said == [["ENOSYS"], "1", "ENOSYS"]


def test_prctl_and_arch_prctl_grant_nothing(attacker: Attacker) -> None:
    """SC-26, SC-18. Options that loosen, hide or turn off; shadow stacks and CPUID faults."""
    options = {
        "SET_SECCOMP": 22, "SET_MM": 35, "SET_KEEPCAPS": 8, "SET_SECUREBITS": 28, "MCE_KILL": 33,
        "CAP_AMBIENT": 47, "CAPBSET_DROP": 24, "SET_PTRACER": 0x59616D61, "SET_TSC": 26,
        "TASK_PERF_EVENTS_DISABLE": 31, "SET_SPECULATION_CTRL": 53, "SET_IO_FLUSHER": 57,
        "SET_SYSCALL_USER_DISPATCH": 59, "SCHED_CORE": 62, "SET_MEMORY_MERGE": 67,
    }  # fmt: skip
    arch = {"SET_CPUID": 0x1012, "SHSTK_ENABLE": 0x5001, "SHSTK_LOCK": 0x5003, "MAP_VDSO": 0x2002,
            "REQ_XCOMP_GUEST_PERM": 0x1025, "ENABLE_TAGGED_ADDR": 0x4002}  # fmt: skip
    code = (
        "prctl, arch, options, archs = json.loads(sys.argv[1])\n"
        "say([{n: call(prctl, o, 1, 0, 0, 0) for n, o in options.items()},\n"
        "     {n: call(arch, o, 0) for n, o in archs.items()} if arch >= 0 else {}])"
    )
    x86 = arch if os.uname().machine == "x86_64" else {}
    given = json.dumps([number("prctl"), number("arch_prctl"), options, x86])
    assert attacker.python(code, given).said == [
        dict.fromkeys(options, "ENOSYS"), dict.fromkeys(x86, "ENOSYS"),
    ]  # fmt: skip


def test_the_kernels_probe_trampolines_give_nothing(attacker: Attacker) -> None:
    """SC-26. uretprobe and uprobe, which the kernel lets past every filter, from ordinary code."""
    code = (
        "def child(n):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os._exit({'ENOSYS': 7, 'ENXIO': 8}.get(call(n, 0, 0, 0), 9))\n"
        "    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        "say([child(n) for n in (335, 336)])"
    )
    assert set(attacker.python(code).said) <= {7, 8, -signal.SIGILL, -signal.SIGSEGV}


def test_objects_that_outlive_a_job_cannot_be_made(attacker: Attacker) -> None:
    """SC-20, SC-21. A hundred thousand asynchronous contexts; and a thousand each of queues,
    segments and semaphores, with arguments that would work. The machine counts none."""
    before = {path: Path(path).read_text() for path in _COUNTED if os.path.exists(path)}
    assert before
    code = (
        "n = json.loads(sys.argv[1])\n"
        "context = ctypes.create_string_buffer(8)\n"
        "aio = {call(n['io_setup'], 1 + i % 9, context) for i in range(50000)}\n"
        "aio |= {call(n['io_submit'], i, 1, context) for i in range(50000)}\n"
        "answers, floods = [], 1000\n"
        "for i in range(floods):\n"
        "    answers += [call(n['shmget'], i, 4096, 0o1600), call(n['semget'], i, 1, 0o1600),\n"
        "                call(n['msgget'], i, 0o1600),\n"
        "                call(n['mq_open'], b'canary%d' % i, 0o102, 0o600, 0)]\n"
        "say([list(aio), len(answers), sorted(set(answers)), os.path.exists('/dev/mqueue')])"
    )
    names = "io_setup io_submit shmget semget msgget mq_open"
    with attacker.held(code, numbered(names.split())) as job:
        assert job.said == [["ENOSYS"], 4000, ["ENOSYS"], False]
        assert {path: Path(path).read_text() for path in before} == before


_COUNTED = ("/proc/sys/fs/aio-nr", "/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg")


def test_watches_of_files_are_few(attacker: Attacker) -> None:
    """SC-22. fanotify; a thousand inotify objects; and as many watches as can be had."""
    code = (
        "made = 0\n"
        "while (fd := libc.inotify_init1(0)) >= 0 and made < 1000: made += 1; last = fd\n"
        "out = errno.errorcode[ctypes.get_errno()]\n"
        "for i in range(1000): Path(f'f{i}').touch()\n"
        "got = [libc.inotify_add_watch(last, b'f%d' % i, 2) for i in range(1000)]\n"
        "full = errno.errorcode[ctypes.get_errno()]\n"
        "fan = [call(int(sys.argv[1]), f, 0) for f in (0, 4, 8, 0x200, 0x600)]\n"
        "say([made, out, sum(w >= 0 for w in got), full, fan])"
    )
    made, out, got, full, fan = attacker.python(code, str(number("fanotify_init"))).said
    assert (made, out) == (8, "EMFILE")
    assert (0 < got <= 512, full) == (True, "ENOSPC")
    assert fan == ["ENOSYS"] * 5


def test_the_kernels_log_is_closed(attacker: Attacker) -> None:
    """SC-23. syslog of all types, with room for an answer; and dmesg."""
    code = (
        "room = ctypes.create_string_buffer(4096)\n"
        "ran = subprocess.run(['dmesg'], capture_output=True)\n"
        "say([[call(int(sys.argv[1]), kind, room, 4096) for kind in range(12)],\n"
        "     room.raw == bytes(4096), ran.returncode != 0, len(ran.stdout)])"
    )
    assert attacker.python(code, str(number("syslog"))).said == [["ENOSYS"] * 12, True, True, 0]


def test_no_priority_and_no_locked_memory_can_be_taken(attacker: Attacker, server: Server) -> None:
    """SC-24. Real-time classes, negative niceness, I/O priorities, locked memory, all processors;
    then sixteen processes spin, while others go on being served (HI1, HI6)."""
    code = (
        "n = json.loads(sys.argv[1])\n"
        "sched = lambda p, s: tried(os.sched_setscheduler, 0, p, os.sched_param(s))\n"
        "attr = struct.pack('IIQiIQQQ', 48, 6, 0, 0, 0, 10**6, 10**7, 10**7)\n"
        "room = ctypes.create_string_buffer(1 << 20)\n"
        "size = ctypes.c_size_t(len(room))\n"
        "locked = [libc.mlock(room, size), libc.mlockall(1), libc.munlockall()]\n"
        "more = [call(n['mlockall'], 2)]\n"
        "try: mmap.mmap(-1, 8 << 20); more.append('ok')\n"
        "except OSError as error: more.append(errno.errorcode[error.errno])\n"
        "libc.munlockall()\n"
        "most = os.sched_getaffinity(0)\n"
        "wide = tried(os.sched_setaffinity, 0, range(1024)), os.sched_getaffinity(0) == most\n"
        "none = tried(os.sched_setaffinity, 0, [1000])\n"
        "answers = [[sched(p, s) for p, s in ((1, 1), (1, 99), (2, 1), (3, 0), (5, 0))],\n"
        "           call(n['sched_setattr'], 0, attr, 0), tried(os.nice, -20),\n"
        "           tried(os.setpriority, os.PRIO_PROCESS, 0, -1),\n"
        "           [call(n['ioprio_set'], 1, 0, c << 13) for c in (1, 2, 3)],\n"
        "           [call(n['mbind'], 0, 4096, 2, 0, 0, 0), call(n['set_mempolicy'], 3, 0, 0)],\n"
        "           locked, more, wide, none]\n"
        "for _ in range(16):\n"
        "    if os.fork() == 0:\n"
        "        end = time.monotonic() + 1.5\n"
        "        while time.monotonic() < end: pass\n"
        "        os._exit(0)\n"
        "for _ in range(16): os.wait()\n"
        "say(answers)"
    )
    names = "sched_setattr ioprio_set mbind set_mempolicy mlockall"
    classes, deadline, nice, priority, io, nodes, locked, future, wide, none = attacker.python(
        code, numbered(names.split())
    ).said
    assert classes == ["ENOSYS"] * 5
    assert (deadline, io, nodes) == ("ENOSYS", ["ENOSYS"] * 3, ["ENOSYS"] * 2)
    assert nice in ("EPERM", "EACCES", "ENOSYS") and priority in ("EACCES", "EPERM")
    assert locked == [-1, -1, 0]
    assert future[0] != "ok" or future[1] in ("EAGAIN", "ENOMEM"), future
    assert wide == ["ok", True]  # the kernel takes what of it there is
    assert none == "EINVAL"


def test_programs_work_under_the_filter(attacker: Attacker) -> None:
    """SC-25. A smoke test of Python with threads, processes, pipes and a database; every language
    with all that it needs is in tests/languages."""
    code = (
        "import asyncio, concurrent.futures as f, multiprocessing as mp, sqlite3\n"
        "from multiprocessing import shared_memory\n"
        "def square(n): return n * n\n"
        "if __name__ == '__main__':\n"
        "    with f.ThreadPoolExecutor(4) as pool: threads = list(pool.map(square, range(4)))\n"
        "    with mp.Pool(2) as pool: processes = pool.map(square, range(4))\n"
        "    block = shared_memory.SharedMemory(create=True, size=64)\n"
        "    block.buf[0] = 7; byte = block.buf[0]; block.close(); block.unlink()\n"
        "    db = sqlite3.connect('x.db'); db.execute('create table t (n)')\n"
        "    db.execute('insert into t values (5)'); db.commit()\n"
        "    async def child():\n"
        "        p = await asyncio.create_subprocess_exec('echo', 'hi', stdout=-1)\n"
        "        return (await p.communicate())[0].decode()\n"
        "    say([threads, processes, byte, db.execute('select n from t').fetchone(),\n"
        "         subprocess.run(['true']).returncode, asyncio.run(child())])"
    )
    squares = [0, 1, 4, 9]
    assert attacker.python(code).said == [squares, squares, 7, [5], 0, "hi\n"]


def test_sockets_reach_no_code_that_programs_do_not_need(attacker: Attacker) -> None:
    """SC-27. Every family and odd types for socket and socketpair; filters and BPF programs for a
    socket, groups, and options of other levels."""
    code = (
        "import itertools\n"
        "n = json.loads(sys.argv[1])\n"
        "pair = ctypes.create_string_buffer(8)\n"
        "kinds = [1, 2, 3, 4, 5, 6, 10, 0x80801]\n"
        "tried_ = list(itertools.product(range(64), kinds, (0, 1, 6, 17, 132, 136, 255, 262)))\n"
        "made = sorted({c[0] for c in tried_ if call(n['socket'], *c) == 'ok' or None})\n"
        "def close(): os.closerange(3, 256)\n"
        "for c in tried_:\n"
        "    if call(n['socket'], *c) == 'ok': made.append(c[0]); close()\n"
        "pairs = set()\n"
        "for c in tried_:\n"
        "    if call(n['socketpair'], *c, pair) == 'ok': pairs.add(c[0]); close()\n"
        "rule = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0xffff))\n"
        "prog = struct.pack('HxxxxxxQ', 1, ctypes.addressof(rule))\n"
        "inet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "sockets = [inet, socket.socket(), socket.socket(socket.AF_UNIX)]\n"
        "if 10 in made: sockets.append(socket.socket(10, 2))\n"
        "options = {'ATTACH_FILTER': (1, 26, prog), 'ATTACH_BPF': (1, 50, struct.pack('i', 3)),\n"
        "    'REUSEPORT_CBPF': (1, 51, prog), 'REUSEPORT_EBPF': (1, 52, struct.pack('i', 3)),\n"
        "    'SNDBUFFORCE': (1, 32, bytes(4)), 'RCVBUFFORCE': (1, 33, bytes(4)),\n"
        "    'MARK': (1, 36, bytes(4)), 'PRIORITY': (1, 12, struct.pack('i', 7)),\n"
        "    'BINDTODEVICE': (1, 25, b'lo'), 'ZEROCOPY': (1, 60, struct.pack('i', 1)),\n"
        "    'ADD_MEMBERSHIP': (0, 35, struct.pack('4s4s', b'\\xe0\\0\\0\\1', bytes(4))),\n"
        "    'MSFILTER': (0, 41, bytes(16)), 'HDRINCL': (0, 3, struct.pack('i', 1)),\n"
        "    'IPV6_JOIN': (41, 20, bytes(20)), 'TCP_ULP': (6, 31, b'tls'),\n"
        "    'TCP_REPAIR': (6, 19, struct.pack('i', 1)), 'TCP_MD5SIG': (6, 14, bytes(216)),\n"
        "    'NETLINK': (270, 1, struct.pack('i', 1)), 'IP6T_REPLACE': (41, 64, bytes(200)),\n"
        "    'IPT_REPLACE': (0, 64, bytes(200)), 'ALG_KEY': (279, 1, bytes(16))}\n"
        "answers = {}\n"
        "for (name, option), s in itertools.product(options.items(), sockets):\n"
        "    answers.setdefault(name, set()).add(tried(s.setsockopt, *option))\n"
        "say([len(tried_), sorted(set(made)), sorted(pairs),\n"
        "     {name: sorted(a) for name, a in answers.items() if a != {'ENOSYS'}}, len(answers),\n"
        "     tried(inet.setsockopt, 1, 8, 4096)])"
    )
    given = numbered(("socket", "socketpair"))
    tried, made, pairs, wrong, count, control = attacker.python(code, given).said
    assert (tried, count) == (64 * 8 * 8, 21)
    assert made == ([1, 2, 10] if HAS_IPV6 else [1, 2])  # AF_UNIX, AF_INET, AF_INET6
    assert pairs == [1]
    assert wrong == {}
    assert control == "ok"


def test_descriptors_that_hold_each_other_go_with_the_job(attacker: Attacker) -> None:
    """SC-27. Sockets are sent over themselves in cycles and let go, as long as the kernel lets it;
    what that holds ends with the job, within its memory."""
    code = (
        "import array\n"
        "sent, answers = 0, set()\n"
        "for _ in range(3000):\n"
        "    try: a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "    except OSError as error: answers.add(errno.errorcode[error.errno]); break\n"
        "    rights = array.array('i', [a.fileno(), b.fileno()] * 8)\n"
        "    try: a.sendmsg([bytes(32768)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])\n"
        "    except OSError as error: answers.add(errno.errorcode[error.errno])\n"
        "    else: sent += 1\n"
        "    a.close(); b.close()\n"
        "say([sent, sorted(answers)])"
    )
    before = _open_files()
    with attacker.held(code, memory_mb=64) as job:
        sent, answers = job.said
        assert sent > 0 and set(answers) <= {"ETOOMANYREFS", "ENOMEM", "EMFILE", "ENOBUFS"}
    peak = attacker.finish(job.id).status["execution_metadata"]["memory_peak_bytes"]
    assert peak <= 64 << 20
    assert eventually(lambda: _open_files() < before + 500, 10), (_open_files(), before)


def _open_files() -> int:
    return int(Path("/proc/sys/fs/file-nr").read_text().split()[0])


def test_advice_and_futexes_that_serve_attacks_only_are_not_there(attacker: Attacker) -> None:
    """SC-26. Advice that merges equal pages of two jobs, writes pages back, or takes them
    out of use; futexes with priority inheritance; all with upper bits, too. Those that programs
    need are done."""
    code = """
madvise, futex = json.loads(sys.argv[1])
page = mmap.mmap(-1, mmap.PAGESIZE)
at = ctypes.addressof(ctypes.c_char.from_buffer(page))
word = ctypes.create_string_buffer(4)
high = (0, 1 << 32, -1 << 32)
say([
    [call(madvise, at, mmap.PAGESIZE, advice) for advice in (4, 10, 16)],
    {advice: sorted({call(madvise, at, mmap.PAGESIZE, advice | bits) for bits in high})
     for advice in (12, 21, 100, 101)},
    [call(futex, word, op, 1, 0, 0, 0) for op in (1, 129)],
    {op: sorted({call(futex, word, op | bits, 1, 0, word, 0) for bits in (128, *high)})
     for op in (6, 7, 8, 11, 12, 13)},
])
"""
    said = attacker.python(code, json.dumps([number("madvise"), number("futex")])).said
    advice, futexes = (
        {str(name): ["ENOSYS"] for name in names}
        for names in ((12, 21, 100, 101), (6, 7, 8, 11, 12, 13))
    )
    assert said == [["ok"] * 3, advice, ["ok"] * 2, futexes]
