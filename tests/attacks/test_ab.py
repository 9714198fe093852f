"""AB: the same calls in other forms. A filter sees numbers: of other ABIs, with bits that the
kernel does not read, of families and protocols whose code would first have to be loaded."""

import errno
import json
import os
import platform
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from tests.attacks.arena import HAS_IPV6, Attacker, compiled
from tests.attacks.numbers import number

UPPER = 1 << 32
NOT_SUPPORTED = errno.errorcode[errno.EOPNOTSUPP]  # which has two names
x86_64_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="needs the ABIs of x86-64")

# --- sockets ------------------------------------------------------------------------------------

RARE = {
    "SCTP": (2, 1, 132), "SCTP packets": (2, 5, 132), "MPTCP": (2, 1, 262), "UDPLITE": (2, 2, 136),
    "DCCP": (2, 6, 33), "L2TP": (2, 2, 115), "GRE": (2, 2, 47), "ICMP": (2, 2, 1),
    "SMC": (2, 1, 256), "RDM": (2, 4, 0), "PACKET of old": (2, 10, 0), "IGMP": (2, 2, 2),
    "SCTP of 6": (10, 1, 132), "MPTCP of 6": (10, 1, 262), "UDPLITE of 6": (10, 2, 136),
    "DCCP of 6": (10, 6, 33), "L2TP of 6": (10, 2, 115), "ICMP of 6": (10, 2, 58),
    "local, rare": (1, 4, 0), "local, old": (1, 10, 0), "local, protocol": (1, 1, 6),
}  # fmt: skip
RAW = {"raw": (2, 3, 255), "raw ICMP": (2, 3, 1), "raw of 6": (10, 3, 58)}
USUAL = {"local": (1, 1, 0), "TCP": (2, 1, 6), "UDP": (2, 2, 17), "default": (2, 1, 0)}
MODULES = ("sctp", "dccp", "l2tp", "smc", "mptcp", "rds", "tipc", "can", "ax25", "vsock", "atm")


def loaded() -> list[str]:
    """Protocols that the kernel has, and modules that a socket would have loaded."""
    names = {line.split()[0] for line in Path("/proc/net/protocols").read_text().splitlines()[1:]}
    if os.path.exists("/proc/modules"):
        modules = (line.split()[0] for line in Path("/proc/modules").read_text().splitlines())
        names |= {name for name in modules if name.startswith(MODULES)}
    return sorted(names)


def test_no_socket_has_the_kernel_load_or_run_a_rare_protocol(attacker: Attacker) -> None:
    """AB-01. Twenty protocols that others have broken kernels by, four usual ones beside them: the
    filter answers before the kernel looks, and the kernel knows no more protocols than before."""
    code = (
        "n, cases = json.loads(sys.argv[1])\n"
        "say({name: call(n, *case) for name, case in cases.items()})"
    )
    before = loaded()
    given = json.dumps([number("socket"), {**RARE, **RAW, **USUAL}])
    assert attacker.python(code, given).said == {
        **dict.fromkeys(RARE, "ENOSYS"),
        **dict.fromkeys(RAW, "EPERM"),
        **dict.fromkeys(USUAL, "ok"),
    }
    assert loaded() == before


def test_upper_bits_make_no_other_socket(attacker: Attacker) -> None:
    """AB-02. Family, type and protocol with bits that the kernel does not read, and with rubbish
    that it does: what is left of them decides."""
    top = 0xFFFFFFFF << 32
    last = 10 if HAS_IPV6 else 2
    same = {
        "local": (UPPER | 1, 1, 0), "TCP": (top | 2, 1, 0), "type": (1, UPPER | 1, 0),
        "protocol": (2, 1, UPPER), "UDP": (top | 2, top | 2, top | 17),
        "flags": (1, 0x80801, 0), "all": (top | last, top | 0x80801, top | 6),
    }  # fmt: skip
    none = {
        "netlink": (UPPER | 16, 3, 0), "packet": (top | 17, 3, 0), "vsock": (UPPER | 40, 1, 0),
        "alg": (top | 38, 5, 0), "MPTCP": (2, 1, UPPER | 262), "SCTP": (2, top | 1, top | 132),
        "protocol -1": (2, 1, -1), "family -1": (-1, 1, 0), "type -1": (2, -1, 0),
        "top only": (top, 1, 0), "family 257": (257, 1, 0), "family 65538": (65538, 1, 0),
        **{f"type {rubbish:x}": (1, rubbish | 1, 0) for rubbish in range(0x10, 0x100, 0x10)},
        **{f"flag {bit}": (2, 1 << bit | 1, 0) for bit in range(4, 32) if bit not in (11, 19)},
    }  # fmt: skip
    code = (
        "n, same, none = json.loads(sys.argv[1])\n"
        "family = lambda case: socket.socket(fileno=libc.syscall(n, *map(ctypes.c_long, case)))\n"
        "say([{name: family(case).family for name, case in same.items()},\n"
        "     {name: call(n, *case) for name, case in none.items()}])"
    )
    made, refused = attacker.python(code, json.dumps([number("socket"), same, none])).said
    assert made == {
        "local": 1, "TCP": 2, "type": 1, "protocol": 2, "UDP": 2, "flags": 1, "all": last,
    }  # fmt: skip
    wrong = {name: answer for name, answer in refused.items() if answer not in ("ENOSYS", "EINVAL")}
    assert (len(refused), wrong) == (len(none), {})


def test_no_family_but_three_is_there(attacker: Attacker) -> None:
    """AB-03. Every family that Linux has a number for, netlink with every protocol of its own, for
    `socket`; and all but the local one for `socketpair`."""
    code = (
        "single, double = json.loads(sys.argv[1])\n"
        "pair = ctypes.create_string_buffer(8)\n"
        "kinds = (1, 2, 3, 5)\n"
        "others = [f for f in range(64) if f not in (1, 2, 10)]\n"
        "cases = [(f, k, p) for f in others for k in kinds for p in (0, 1, 3, 768)]\n"
        "cases += [(16, k, p) for k in kinds for p in range(32)]\n"
        "pairs = [(f, k, p) for f in (*others, 2, 10) for k in kinds for p in (0, 1, 6)]\n"
        "say([len(cases), sorted({call(single, *c) for c in cases}), len(pairs),\n"
        "     sorted({call(double, *c, pair) for c in pairs}),\n"
        "     [call(single, f, 1, 0) for f in (1, 2)], call(double, 1, 1, 0, pair)])"
    )
    given = json.dumps([number("socket"), number("socketpair")])
    assert attacker.python(code, given).said == [
        61 * 16 + 4 * 32, ["ENOSYS"], 63 * 12, ["ENOSYS"], ["ok", "ok"], "ok",
    ]  # fmt: skip


# --- other ABIs ---------------------------------------------------------------------------------

# 32-bit code: the call of the number that is put in, with 55 as its first argument. ENOSYS ends it
# by SIGILL, any other answer by SIGTRAP.
CALL_32 = b"\xbb\x37\0\0\0\x31\xc9\x31\xd2\xcd\x80\x83\xf8\xda\x74\x01\xcc\x0f\x0b"
EXIT, GETPID = 1, 20  # there

INTO_32 = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
static const unsigned char code[] = {__CODE__};
static int ended(int way, unsigned number) {
    int status;
    fflush(stdout);
    if (fork() == 0) {
        unsigned char *at = mmap(0, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        unsigned char *stack = mmap(0, 65536, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        at[0] = 0xb8;                                         /* mov number, %eax */
        memcpy(at + 1, &number, 4);
        memcpy(at + 5, code, sizeof code);
        if (way == 0)                                         /* a far return into CS 0x23 */
            __asm__ volatile("mov %0, %%rsp; pushq $0x23; push %1; lretq"
                             :: "r"(stack + 32768), "r"(at));
        else                                                  /* the 32-bit fast door */
            __asm__ volatile("mov %0, %%rsp; mov %%rsp, %%rbp; sysenter"
                             :: "r"(stack + 32768), "a"(number), "b"(55L));
        _exit(99);
    }
    wait(&status);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}
static long compat(long number) {
    long answer = number;
    __asm__ volatile("int $0x80" : "+a"(answer) : "b"(0), "c"(0), "d"(0), "S"(0), "D"(0)
                     : "r8", "r9", "r10", "r11", "memory");
    return answer;
}
int main(int argc, char **argv) {
    if (strcmp(argv[1], "-") == 0) { argc--; argv++; printf("[0, 0, 0, ["); }
    else printf("[%d, %d, %d, [", ended(0, 20), ended(0, 1), ended(1, 1));
    for (int i = 1; i < argc; i++)
        printf("%s%ld", i > 1 ? ", " : "", compat(atol(argv[i])));
    printf("]]\n");
    return 0;
}
""".replace("__CODE__", ",".join(map(str, CALL_32)))

# getpid, mount, ptrace, socketcall, ipc, sysinfo, keyctl, unshare, clone3, and none
OLD_CALLS = ("20", "21", "26", "102", "117", "116", "288", "310", "435", "999")


def elf_32(number: int) -> bytes:
    """A program of 32 bits that makes one call."""
    code = b"\xb8" + struct.pack("<I", number) + CALL_32
    at, size = 0x08048000, 52 + 32
    head = b"\x7fELF\1\1\1" + bytes(9) + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, at + size, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )  # fmt: skip
    segment = struct.pack("<IIIIIIII", 1, 0, at, at, size + len(code), size + len(code), 5, 4096)
    return head + segment + code


@x86_64_only
def test_the_32_bit_doors_lead_nowhere(attacker: Attacker, tmp_path: Path) -> None:
    """AB-04. int 0x80 from 64-bit code; a far jump into 32-bit code; sysenter; and a program of 32
    bits. No call is made: not even its own end, which on the machine itself is one."""
    program = tmp_path / "old"
    program.write_bytes(elf_32(EXIT))
    program.chmod(0o755)
    probe = tmp_path / "probe"
    probe.write_bytes(compiled(INTO_32))
    probe.chmod(0o755)
    try:
        outside = subprocess.run([program], check=False).returncode
    except OSError:
        outside = None
    if "User Mode Linux" in Path("/proc/cpuinfo").read_text() or outside != 55:
        # A kernel without 32-bit calls; user-mode Linux takes them for 64-bit ones.
        answers = json.loads(attacker.c(INTO_32, "-", "435", "999").text)[3]
        assert answers == [-errno.ENOSYS] * 2, answers
        return
    command = [str(probe), "20"]
    free = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert free[:2] == [-signal.SIGTRAP, 55], free  # what a job would get without the filter

    seen = attacker.c(INTO_32, *OLD_CALLS)
    far, far_exit, fast, answers = json.loads(seen.text)
    assert (far, far_exit) == (-signal.SIGILL, -signal.SIGILL), seen.text
    assert fast in (-signal.SIGSEGV, -signal.SIGILL, -signal.SIGBUS), seen.text
    assert answers == [-errno.ENOSYS] * len(OLD_CALLS), seen.text
    code = (
        "os.chmod('old', 0o755)\n"
        "try: say(subprocess.run(['./old']).returncode)\n"
        "except OSError as error: say(errno.errorcode[error.errno])"
    )
    ended = attacker.python(code, files={"old": elf_32(EXIT)}).said
    assert ended in (-signal.SIGILL, -signal.SIGSEGV, "ENOEXEC"), ended


@x86_64_only
def test_numbers_with_more_bits_are_no_other_calls(attacker: Attacker) -> None:
    """AB-05. The numbers of x32, common ones and its own; numbers beyond all; and denied ones with
    bits above the 32 that the kernel reads. None is done."""
    x32 = [0x40000000 | n for n in (0, 1, 16, 39, 41, 56, 59, 101, 165, 272, 308, 435)]
    x32 += [0x40000000 | n for n in range(512, 548)]
    beyond = [-1, 0xFFFFFFFF, 0x3FFFFFFF, 0x7FFFFFFF, 1 << 31, 1000, 512, 547, 0x20000000 | 39]
    names = ("ptrace", "mount", "unshare", "keyctl", "bpf", "setns", "swapon", "init_module")
    denied = [number(name) for name in names]
    uppers = [n | bits for n in denied for bits in (UPPER, 0xFFFFFFFF << 32, 1 << 63)]
    code = (
        "x32, beyond, uppers, getpid = json.loads(sys.argv[1])\n"
        "signed = lambda n: n - (1 << 64) if n >> 63 else n\n"
        "ask = lambda them: [call(signed(n), 0, 0, 0, 0, 0) for n in them]\n"
        "say([ask(x32), ask(beyond), ask(uppers), call(getpid), ask([getpid | 1 << 32])])"
    )
    given = json.dumps([x32, beyond, uppers, number("getpid")])
    old, none, uppers_said, control, odd = attacker.python(code, given).said
    assert old == ["ENOSYS"] * 48
    assert none == ["ENOSYS"] * len(beyond)
    assert len(uppers_said) == 24 and set(uppers_said) <= {"EPERM", "ENOSYS"}, uppers_said
    assert control == "ok" and odd[0] in ("ok", "ENOSYS")


# --- bits of arguments --------------------------------------------------------------------------

CLONES = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static const char *kinds[] = {"user", "pid", "net", "mnt", "ipc", "uts", "cgroup", "time"};
static void links(char *all) {
    all[0] = 0;
    for (int i = 0; i < 8; i++) {
        char path[40], link[60];
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        ssize_t length = readlink(path, link, sizeof link - 1);
        if (length > 0) { link[length] = 0; strcat(all, link); }
    }
}
int main(int argc, char **argv) {
    char ours[600], theirs[600];
    links(ours);
    for (int i = 1; i < argc; i++) {
        long pid = syscall(SYS_clone, strtoul(argv[i], 0, 0), 0L, 0L, 0L, 0L);
        int status = 0;
        if (pid == 0) {
            links(theirs);
            _exit(strcmp(ours, theirs) ? 1 : 0);
        }
        if (pid < 0) { printf("%d ", errno); continue; }
        waitpid(pid, &status, __WALL);
        printf("%s ", status == 0 ? "same" : "OTHER");
    }
    char room[4096] = {0};
    long sizes[] = {0, 64, 80, 88, 4096};
    *(long *)room = 0x10000000;
    for (int i = 0; i < 5; i++) {
        long pid = syscall(SYS_clone3, room, sizes[i]);
        if (pid == 0) _exit(0);
        printf("%d ", pid < 0 ? errno : 0);
    }
    printf("%d\n", syscall(SYS_clone3, 0L, 88L) < 0 ? errno : 0);
    return 0;
}
"""
NEW = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)


def test_no_bit_of_clone_makes_a_namespace(attacker: Attacker) -> None:
    """AB-07. Every namespace's bit, alone, with its twin in the upper half, among all that threads
    use, and all together: EPERM. In the upper half only, or where the exit signal is, it means
    nothing: a child in the same namespaces. clone3, of every size: ENOSYS."""
    child = int(signal.SIGCHLD)
    harmless = 0x00200000 | 0x01000000 | 0x400  # CHILD_CLEARTID, CHILD_SETTID, FILES
    denied = [flag | more for flag in NEW for more in (
        child, flag << 32 | child, 0xFFFFFFFF << 32 | child, harmless | child, 0, 0x100 | 0x4000,
    )]  # fmt: skip
    denied.append(sum(NEW) | child)
    upper = [flag << 32 | child for flag in NEW] + [1 << 33 | child, 0x80]
    seen = attacker.c(CLONES, *map(hex, [*denied, *upper]))
    answers = seen.text.split()
    assert answers[: len(denied)] == [str(errno.EPERM)] * 43, seen
    assert answers[len(denied) : -6] == ["same"] * len(upper), seen
    assert answers[-6:] == [str(errno.ENOSYS)] * 6, seen


def test_no_option_of_prctl_is_another_with_upper_bits(attacker: Attacker) -> None:
    """AB-08. Twenty options that loosen, hide or change the machine, with no, one and all upper
    bits; a name is set with such bits too."""
    options = (
        6, 8, 10, 20, 22, 24, 26, 28, 31, 33, 35, 43, 47, 50, 53, 55, 57, 59, 62, 65, 67, 69, 71,
        74, 0x59616D61, 0x6A6F6273,
    )  # fmt: skip
    code = (
        "n, options = json.loads(sys.argv[1])\n"
        "bits = (0, 1 << 32, -1 << 32)\n"
        "answers = [call(n, o | b, a, 0, 0, 0) for o in options for b in bits for a in (0, 1, 2)]\n"
        "named = []\n"
        "for b in bits:\n"
        "    word = b'name %x' % (b & 0xffff00000000)\n"
        "    named.append([call(n, 15 | b, word, 0, 0, 0),\n"
        "                  Path('/proc/self/comm').read_text().strip() == word.decode()[:15]])\n"
        "say([len(answers), sorted(set(answers)), named, status()['NoNewPrivs'],\n"
        "     status()['Seccomp']])"
    )
    given = json.dumps([number("prctl"), options])
    count, answers, named, privileges, mode = attacker.python(code, given).said
    assert (count, answers) == (len(options) * 9, ["ENOSYS"])
    assert named == [["ok", True]] * 3
    assert (privileges, mode) == ("1", "2")


# Level and option; what they would do.
SETS = {
    "TCP_ULP": (6, 31), "TCP_CONGESTION": (6, 13), "TCP_REPAIR": (6, 19), "TCP_MD5SIG": (6, 14),
    "TCP_FASTOPEN": (6, 23), "TCP_FASTOPEN_CONNECT": (6, 30), "TCP_ZEROCOPY_RECEIVE": (6, 35),
    "TCP_AO_ADD_KEY": (6, 38), "SO_ATTACH_FILTER": (1, 26), "SO_ATTACH_BPF": (1, 50),
    "SO_DETACH_FILTER": (1, 27), "SO_LOCK_FILTER": (1, 44), "SO_REUSEPORT_CBPF": (1, 51),
    "SO_REUSEPORT_EBPF": (1, 52), "SO_MARK": (1, 36), "SO_TXTIME": (1, 61), "SO_ZEROCOPY": (1, 60),
    "SO_BINDTODEVICE": (1, 25), "SO_BINDTOIFINDEX": (1, 62), "SO_PRIORITY": (1, 12),
    "SO_BUSY_POLL": (1, 46), "SO_MAX_PACING_RATE": (1, 47), "SO_PASSPIDFD": (1, 76),
    "SO_TIMESTAMPING": (1, 37), "IP_ADD_MEMBERSHIP": (0, 35), "MCAST_JOIN_GROUP": (0, 42),
    "IP_MSFILTER": (0, 41), "IP_OPTIONS": (0, 4), "IP_HDRINCL": (0, 3), "IP_TRANSPARENT": (0, 19),
    "IPT_SO_SET_REPLACE": (0, 64), "ARPT_SO_SET_REPLACE": (0, 96), "EBT_SO_SET_ENTRIES": (0, 128),
    "IPV6_FLOWLABEL_MGR": (41, 32), "IPV6_ADDRFORM": (41, 1), "IPV6_HOPOPTS": (41, 54),
    "IPV6_RTHDR": (41, 57), "IPV6_JOIN_GROUP": (41, 20), "IP6T_SO_SET_REPLACE": (41, 64),
    "UDP_ENCAP": (17, 100), "UDP_SEGMENT": (17, 103), "UDP_GRO": (17, 104), "UDP_CORK": (17, 1),
    "MPTCP": (284, 1), "TLS_TX": (282, 1), "ALG_SET_KEY": (279, 1), "NETLINK": (270, 1),
}  # fmt: skip
SIZES = (0, 4, 8, 136)


def test_no_option_of_a_socket_reaches_more_of_the_kernel(attacker: Attacker) -> None:
    """AB-09. Forty options that load code, join, mark or replace, by four kinds of sockets, of
    several sizes, with upper bits: ENOSYS. What can be asked tells of the job itself only."""
    code = (
        "n, sets, sizes = json.loads(sys.argv[1])\n"
        "socks = {'tcp': socket.socket(), 'udp': socket.socket(type=2), 'unix': socket.socket(1),\n"
        "         'pair': socket.socketpair()[0]}\n"
        "answers = [[name, kind, a] for name, (level, option) in sets.items()\n"
        "    for kind, s in socks.items() for size in sizes for bits in (0, 1 << 32)\n"
        "    if (a := call(n, s.fileno(), level | bits, option | bits,\n"
        "                  b'tls' + bytes(size), size)) != 'ENOSYS']\n"
        "ulp = tried(socks['tcp'].setsockopt, 6, 31, b'tls')\n"
        "a, b = socket.socketpair()\n"
        "def asked(s, level, option):\n"
        "    try: return len(s.getsockopt(level, option, 128))\n"
        "    except OSError as error: return errno.errorcode[error.errno]\n"
        "tables = [asked(socks[kind], level, option) for kind in ('tcp', 'udp')\n"
        "    for level, option in ((0, 64), (0, 65), (0, 96), (0, 128), (41, 64), (6, 19))]\n"
        "fd = None\n"
        "try:\n"
        "    fd = struct.unpack('i', a.getsockopt(1, 77, 4))[0]\n"
        "    fd = int(Path(f'/proc/self/fdinfo/{fd}').read_text().split('Pid:')[1].split()[0])\n"
        "except OSError: pass\n"
        "say([answers, ulp, list(struct.unpack('3i', a.getsockopt(1, 17, 12))), os.getpid(), fd,\n"
        "     asked(a, 1, 59), asked(socks['tcp'], 1, 26), tables,\n"
        "     tried(socks['tcp'].setsockopt, 6, 1, 1),\n"
        "     tried(socks['unix'].setsockopt, 1, 7, 4096)])"
    )
    given = json.dumps([number("setsockopt"), SETS, SIZES])
    wrong, ulp, peer, pid, by_fd, groups, program, tables, *control = attacker.python(
        code, given
    ).said
    assert (wrong, ulp) == ([], "ENOSYS")
    assert peer == [pid, 1000, 1000]
    assert by_fd in (pid, None), by_fd  # None: an older kernel
    assert groups == 0 and program in (0, "ENOENT", "EPERM"), (groups, program)
    assert len(tables) == 12 and not {a for a in tables if isinstance(a, int) and a > 4}, tables
    assert control == ["ok", "ok"]


def test_nothing_is_sent_out_of_band(attacker: Attacker) -> None:
    """AB-10. MSG_OOB, alone and among other flags, with upper bits, by all three calls that take
    flags, on four sockets: EOPNOTSUPP, and nothing arrives. Without it the same message does."""
    code = (
        "n = json.loads(sys.argv[1])\n"
        "text = ctypes.create_string_buffer(b'x')\n"
        "vector = ctypes.create_string_buffer(struct.pack('QQ', ctypes.addressof(text), 1))\n"
        "message = struct.pack('QIxxxxQQQQixxxx', 0, 0, ctypes.addressof(vector), 1, 0, 0, 0)\n"
        "message = ctypes.create_string_buffer(message + bytes(8))\n"
        "flags = [1, 1 | 1 << 32, -1 << 32 | 1, 0x4001, 0x41, 0x20000001, 0x4000001]\n"
        "pairs = [socket.socketpair(1, kind) for kind in (1, 2, 5)]\n"
        "tcp = socket.socket()\n"
        "def send(s, f):\n"
        "    return [call(n['sendto'], s, b'x', 1, f, 0, 0), call(n['sendmsg'], s, message, f),\n"
        "            call(n['sendmmsg'], s, message, 1, f)]\n"
        "answers = [a for s in (*(p[0] for p in pairs), tcp) for f in flags\n"
        "           for a in send(s.fileno(), f)]\n"
        "arrived = [tried(p[1].recv, 9, socket.MSG_DONTWAIT) for p in pairs]\n"
        "urgent = [tried(p[1].recv, 9, socket.MSG_DONTWAIT | socket.MSG_OOB) for p in pairs]\n"
        "sent = [a for p in pairs for f in (0, 1 << 32) for a in send(p[0].fileno(), f)]\n"
        "say([len(answers), sorted(set(answers)), arrived, urgent, sorted(set(sent)),\n"
        "     [p[1].recv(1).decode() for p in pairs],\n"
        "     tried(tcp.sendto, b'x', 0x20000000, ('127.0.0.1', 9))])"
    )
    numbers = {name: number(name) for name in ("sendto", "sendmsg", "sendmmsg")}
    count, answers, arrived, urgent, sent, received, opened = attacker.python(
        code, json.dumps(numbers)
    ).said
    assert (count, answers) == (4 * 7 * 3, [NOT_SUPPORTED])
    assert arrived == ["EAGAIN"] * 3
    assert "ok" not in urgent, urgent
    assert (sent, received) == (["ok"], ["x"] * 3)
    assert opened in ("ENETUNREACH", NOT_SUPPORTED, "EINPROGRESS"), opened
