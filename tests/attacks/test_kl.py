"""KL: what the own log of the kernel tells of a job. No design keeps it from naming a program that
crashes or runs out of memory; the bound that we promise is tried here: nothing but the 15 bytes of
a program's name, the name of its file and bytes of its code; and only when it crashes, or meets a
limit. Never its environment, its arguments, files, its client, or its job's id."""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.arena import Attacker, Seen, compiled
from tests.attacks.invariants import KernelLog
from tests.attacks.numbers import number
from tests.journeys.server import eventually

# What may be said about a program of a job: its crash, its death by a limit, and what the kernel
# says once in its life when a program uses old interfaces.
CRASHES = (
    r"segfault at |traps: .*general protection|traps: .*(invalid opcode|divide error|int3|trap )|"
    r"Code: |umip: |vsyscall |overflowed sigaltstack|likely on CPU|coredump: |bad frame in |"
    r"split_lock|alignment check"
)
LIMITS = (
    r"oom-kill|oom_reaper|Memory cgroup|invoked oom-killer|Killed process|Tasks in |\[ +\d+\] +\d+|"
    r"fork rejected by pids|Hardware name|Comm: |memory\+swap|VmData|CPU: "
)
ONCE = (
    r"32-bit capabilities|deprecated v2 capabilities|negative timeout|executable stack|VmData|"
    r"legacy capget"
)
KNOWN = re.compile(f"{CRASHES}|{LIMITS}|{ONCE}")


class Log:
    """What the kernel says about the programs of one test; `mark` is their name."""

    def __init__(self) -> None:
        self.mark = f"KL{secrets.token_hex(5)}"
        self._log = KernelLog()
        self.lines: list[str] = []

    def about(self, *words: str) -> list[str]:
        """Every line since the beginning that has our mark or one of these."""
        self.lines += self._log.read()
        wanted = (self.mark, *words)
        return [line for line in self.lines if any(word in line for word in wanted)]

    def close(self) -> None:
        self._log.close()


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    try:
        yield made
    finally:
        made.close()


CRASHING = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
static void segv(void) { *(volatile long *)8 = 1; }
static void jump(void) { ((void (*)(void))0x10)(); }
static void general(void) { *(volatile long *)0xdead000000000000UL = 1; }
static void opcode(void) { __asm__ volatile("ud2"); }
static void breakpoint(void) { __asm__ volatile("int3"); }
static void divide(void) { volatile int zero = 0; volatile int x = 7 / zero; }
static void aligned(void) {
    __asm__ volatile("pushf; orl $0x40000, (%rsp); popf");
    char a[16]; *(volatile int *)(a + 1) = 1;
}
static void split(void) {
    char *page = mmap(0, 8192, 3, 34, -1, 0);
    __asm__ volatile("lock incl (%0)" :: "r"(page + 4094) : "memory");
}
static void sgdt(void) { unsigned char b[16]; __asm__ volatile("sgdt %0" : "=m"(b)); }
static void sidt(void) { unsigned char b[16]; __asm__ volatile("sidt %0" : "=m"(b)); }
static void smsw(void) { long b; __asm__ volatile("smsw %0" : "=r"(b)); }
static void str_(void) { unsigned short b; __asm__ volatile("str %0" : "=r"(b)); }
static void vsyscall(void) { ((long (*)(long *))0xffffffffff600400UL)((long *)8); }
static void middle(void) { ((void (*)(void))0xffffffffff600404UL)(); }
static void handler(int n) {}
static void altstack(void) {
    char *st = mmap(0, 65536, 3, 34, -1, 0);
    stack_t ss = {.ss_sp = st + 4096, .ss_size = MINSIGSTKSZ};
    if (sigaltstack(&ss, 0)) { ss.ss_size = 4096; sigaltstack(&ss, 0); }
    struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_NODEFER};
    sigaction(SIGUSR1, &sa, 0);
    __asm__ volatile("mov %0, %%rsp; mov $39, %%eax; syscall; mov %%eax, %%edi; mov $10, %%esi;"
                     "mov $62, %%eax; syscall; ud2" :: "r"(st + 4096 + 300) : "memory");
}
static void frame(void) {
    __asm__ volatile("mov $0x1000, %rsp; mov $15, %eax; syscall");  /* rt_sigreturn */
}
static void data(void) {
    struct rlimit r = {4096, 4096};
    setrlimit(RLIMIT_DATA, &r);
    mmap(0, 1 << 20, 3, 34, -1, 0);
}
static void caps(void) {
    struct __user_cap_data_struct d[2];
    struct __user_cap_header_struct a = {0x19980330, 0}, b = {0x20071026, 0};
    syscall(SYS_capget, &a, d);
    syscall(SYS_capget, &b, d);
}
static void timeout(void) {
    int s = socket(1, 1, 0);
    struct timeval t = {-1, 0};
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
}
static void wake(void) {
    uint32_t a = 0, b = 0;
    for (int shift = 32; shift < 64; shift++)
        for (int private = 0; private <= 128; private += 128) {
            long op = FUTEX_OP(FUTEX_OP_ADD | FUTEX_OP_OPARG_SHIFT, shift, 0, 0);
            syscall(SYS_futex, &a, FUTEX_WAKE_OP | private, 1, 1L, &b, op);
            syscall(SYS_futex, &a, FUTEX_WAKE_OP | private, 1, 1L, &b, op | 1L << 40);
        }
}
static void plain(void) {
    uint32_t a = 0, b = 0;
    printf("wake %ld\n", syscall(SYS_futex, &a, FUTEX_WAKE_OP, 1, 1L, &b,
                                 FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0)));
    printf("value %u\n", b);
    fflush(stdout);
}
static void files(void) { syscall(SYS_memfd_create, "KLmemfd", 0); }
static struct { const char *name; void (*run)(void); } all[] = {
    {"segv", segv}, {"jump", jump}, {"general", general}, {"opcode", opcode}, {"int3", breakpoint},
    {"divide", divide}, {"aligned", aligned}, {"split", split}, {"sgdt", sgdt}, {"sidt", sidt},
    {"smsw", smsw}, {"str", str_}, {"vsyscall", vsyscall}, {"middle", middle},
    {"altstack", altstack}, {"frame", frame}, {"data", data}, {"caps", caps},
    {"timeout", timeout}, {"wake", wake}, {"plain", plain}, {"files", files},
};
int main(int argc, char **argv) {
    prctl(PR_SET_NAME, argv[1]);
    for (int i = 3; i < argc; i++)
        for (unsigned k = 0; k < sizeof all / sizeof *all; k++) {
            if (strcmp(argv[i], all[k].name)) continue;
            pid_t child = fork();
            if (!child) { all[k].run(); _exit(0); }
            int status;
            waitpid(child, &status, 0);
            printf("%s %d\n", argv[i], WIFSIGNALED(status) ? WTERMSIG(status) : 0);
            fflush(stdout);
        }
}
"""


def run(attacker: Attacker, log: Log, *cases: str, **options: object) -> dict[str, int]:
    """By case: which signal ended it. Its canary is an argument, in its environment, in a file that
    it has open, and on its stdin."""
    before = f"cp probe {log.mark}; exec 5<{attacker.canary}.txt"
    script = f'{before}; chmod +x {log.mark}; exec ./{log.mark} "$@"\n'
    seen = attacker.sh(
        script, log.mark, attacker.canary, *cases, files={"probe": compiled(CRASHING)},
        stdin=attacker.canary, **options,
    )  # fmt: skip
    assert (seen.reason, seen.code) == (None, 0), (seen.status, seen.stderr)
    bounded(attacker, log, seen)
    lines = [line.split() for line in seen.text.splitlines()]
    return {name: int(ended) for name, ended in lines}


def bounded(attacker: Attacker, log: Log, seen: Seen) -> None:
    """What the kernel said is of a known kind, and names nothing that we promise to keep."""
    lines = log.about(seen.id, attacker.canary, attacker.address)
    for line in lines:
        for secret in (seen.id, seen.id.removeprefix("job-"), attacker.canary, attacker.address):
            assert secret not in line, line
        assert "/job/" not in line, line  # the file's name, and never its path
        assert KNOWN.search(line), f"the kernel says something new: {line!r}"


def test_a_crash_tells_a_name_and_code_at_most(attacker: Attacker, log: Log) -> None:
    """KL-01, KL-08. Programs that write to and jump to nowhere, divide by nothing, run what is no
    instruction, are stopped by alignment and lock over two cache lines: the log stays within its
    bound. Where the machine logs no crashes, it says nothing."""
    cases = ("segv", "jump", "general", "opcode", "int3", "divide", "aligned", "split")
    ended = run(attacker, log, *cases)
    assert len(ended) == len(cases), ended
    assert (ended["segv"], ended["jump"], ended["general"]) == (11, 11, 11), ended
    assert (ended["opcode"], ended["int3"], ended["divide"]) == (4, 5, 8), ended
    switch = Path("/proc/sys/debug/exception-trace")
    if switch.exists() and switch.read_text() == "0\n":
        assert not [line for line in log.about() if "split" not in line], log.about()


def test_forbidden_instructions_and_old_entries_tell_a_name_at_most(
    attacker: Attacker, log: Log
) -> None:
    """KL-02, KL-03. The instructions that UMIP forbids, the vsyscall page with a bad pointer, and a
    jump into its middle."""
    ended = run(attacker, log, "sgdt", "sidt", "smsw", "str", "vsyscall", "middle")
    assert len(ended) == 6 and set(ended.values()) <= {0, 11}, ended
    assert ended["middle"] == 11, ended


def test_the_futex_that_the_kernel_complains_of_is_not_there(attacker: Attacker, log: Log) -> None:
    """KL-04. FUTEX_WAKE_OP with a shift that is too far, again and again: each would be a line with
    a name of the job's choice. Not one comes; the same call without it works."""
    ended = run(attacker, log, "wake", "wake", "wake")
    assert ended == {"wake": 0}, ended
    assert not log.about("futex_wake_op"), log.about("futex_wake_op")
    code = f"""
a, b = ctypes.c_uint32(0), ctypes.c_uint32(0)
def wake(op):
    result = libc.syscall({number("futex")}, ctypes.byref(a), 5, 1, ctypes.c_long(1),
                          ctypes.byref(b), ctypes.c_long(op))
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
SHIFT, ADD = 8, 1
say([wake((ADD << 28) | (1 << 12)), b.value,
     *(wake(((SHIFT | ADD) << 28) | (40 << 12) | high) for high in (0, 1 << 32, -1 << 32))])
"""
    ok, value, *shifted = attacker.python(code).said
    assert (ok, value) == ("ok", 1), (ok, value)
    assert set(shifted) <= {"ENOSYS", "EINVAL", "EPERM"} and len(shifted) == 3, shifted


def test_what_the_kernel_says_once_in_its_life_tells_a_name_at_most(
    attacker: Attacker, log: Log
) -> None:
    """KL-05. The lines that a kernel prints once: a data limit that is met, old versions of
    capget(), a negative timeout, an executable stack. They come on the first run after a boot only,
    and then within the bound; sockets of packets and of UDP-Lite do not exist at all."""
    ended = run(attacker, log, "data", "caps", "timeout")
    assert ended == {"data": 0, "caps": 0, "timeout": 0}, ended
    stack = "int main() { return 0; }"
    seen = attacker.c(stack, flags="-z execstack")
    bounded(attacker, log, seen)
    assert seen.code == 0, seen
    code = "say([call(41, *what) for what in ((2, 10, 0), (2, 2, 136), (10, 2, 136), (17, 3, 0))])"
    assert attacker.python(code).said == ["ENOSYS"] * 4
    made = re.compile("SOCK_PACKET|UDP-?Lite")
    assert not [line for line in log.about() if made.search(line)], log.about()


def test_a_death_for_want_of_memory_tells_names_at_most(attacker: Attacker, log: Log) -> None:
    """KL-06. Several processes with a name of the job's choice, and one that takes all memory: the
    kernel may list them, by these names and the number of the job's cgroup, and no more."""
    code = f"""
name = {log.mark!r}.encode()
for _ in range(5):
    if os.fork() == 0:
        call(157, 15, ctypes.create_string_buffer(name), 0, 0, 0)
        time.sleep(50)
call(157, 15, ctypes.create_string_buffer(name), 0, 0, 0)
kept = []
while True:
    kept.append(bytes(range(256)) * 4096)
"""
    seen = attacker.python(code, attacker.canary, memory_mb=48)
    assert seen.reason == "memory", seen.status
    eventually(lambda: bool(log.about("oom")), 1)  # where the kernel tells of it at all
    bounded(attacker, log, seen)


def test_a_fork_beyond_the_limit_tells_no_name(attacker: Attacker, log: Log) -> None:
    """KL-07. Forks beyond the limit of the tasks: one line a job at most, with the running number
    of its cgroup; no name, and nothing that leads to the job."""
    code = f"""
call(157, 15, ctypes.create_string_buffer({log.mark!r}.encode()), 0, 0, 0)
answers = []
for _ in range(200):
    try:
        if os.fork() == 0:
            signal.pause()
    except OSError as error:
        answers.append(errno.errorcode[error.errno])
say([len(answers), sorted(set(answers))])
os._exit(0)
"""
    seen = attacker.python(code, attacker.canary)
    refused, kinds = seen.said
    assert refused > 150 and kinds == ["EAGAIN"], seen.text
    rejected = log.about("fork rejected")
    assert not [line for line in rejected if log.mark in line], rejected
    bounded(attacker, log, seen)


def test_signal_frames_that_do_not_fit_tell_a_name_at_most(attacker: Attacker, log: Log) -> None:
    """KL-08. A signal on an alternate stack that is too small for it, and a return from a signal
    that never came."""
    ended = run(attacker, log, "altstack", "frame")
    assert ended["frame"] == 11 and ended["altstack"] in (4, 10, 11), ended


def test_denied_calls_are_in_no_log(attacker: Attacker, log: Log) -> None:
    """KL-09. A thousand calls of each kind that the filter refuses, also by the 32-bit table:
    not a line, of audit or of anybody."""
    names = ("ptrace", "mount", "bpf", "keyctl", "perf_event_open", "io_uring_setup", "kexec_load")
    numbers = [number(name) for name in names]
    denied = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <errno.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
    prctl(PR_SET_NAME, argv[1]);
    long failed = 0, made = 0;
    for (int n = 0; n < 1000; n++) {
        for (int i = 2; i < argc; i++, made++)
            failed += syscall(atol(argv[i]), 0, 0, 0, 0, 0, 0) < 0;
        made += 3;
        failed += socket(16, 3, 0) < 0;
        failed += syscall(0x40000000 | 101, 0, 0, 0, 0) < 0;
        long r;
        __asm__ volatile("int $0x80" : "=a"(r) : "a"(26), "b"(0), "c"(0) : "memory");
        failed += r < 0;
    }
    printf("%ld %ld\n", made, failed);
}
"""
    seen = attacker.c(denied, log.mark, *map(str, numbers))
    assert seen.text == f"{1000 * (len(names) + 3)} {1000 * (len(names) + 3)}\n", seen
    said = log.about("audit", "seccomp", "type=1326")
    ours = [line for line in said if log.mark in line or "uid=19000" in line]
    assert not ours, ours


def test_a_core_that_is_wanted_is_told_by_name_at_most(attacker: Attacker, log: Log) -> None:
    """KL-10. With all limits as high as it may, it crashes where a core would lie: no core comes
    out, and a line about it is within the bound."""
    code = f"""
import resource
call(157, 15, ctypes.create_string_buffer({log.mark!r}.encode()), 0, 0, 0)
call(157, 4, 1, 0, 0, 0)
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
answers = [tried(resource.setrlimit, resource.RLIMIT_CORE, (hard, hard)),
           "ok" if hard <= 1 else "hard"]
try:
    resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))
    answers.append("ok")
except (OSError, ValueError):
    answers.append("refused")
say(answers)
os.kill(os.getpid(), signal.SIGSEGV)
"""
    seen = attacker.python(code, attacker.canary)
    assert (seen.reason, seen.status["signal"]) == ("signal", 11), seen.status
    assert seen.text == '["ok", "ok", "refused"]\n', seen.text
    assert not [row for row in seen.status["outputs"] if "core" in row["path"]], seen.status
    bounded(attacker, log, seen)


def test_we_ourselves_cause_no_line(attacker: Attacker, log: Log) -> None:
    """KL-11. Jobs with files, an archive, stdin, outputs and downloads: the kernel finds nothing to
    say about our own programs, such as that memory could be executed."""
    for n in range(5):
        seen = attacker.sh("cat >out", stdin="x" * 1000, outputs=["out"])
        assert attacker.download(seen.id, "out") == b"x" * 1000
        attacker.finish(attacker.start_archive({"main.py": b"print(%d)" % n}))
    ours = log.about("without MFD_EXEC", "sandrun-inside", "sandbox.launcher")
    assert not ours, ours
