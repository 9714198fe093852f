"""A signer with one fault, for the tests: `faulty_signer.py fault STEP FD FILE` fails at a step,
`faulty_signer.py try CALL FD FILE` makes one call when it is asked for a signature, and
`faulty_signer.py machine dumpable FD FILE` is on a machine that sets fs.suid_dumpable.

The shipped signer has no switch for this; here the functions are wrapped from outside.
"""

import ctypes
import errno
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable

import prctl

from sandbox import linux, signer

_libc = ctypes.CDLL(None, use_errno=True)
_page = mmap.mmap(-1, mmap.PAGESIZE)
_address = ctypes.addressof(ctypes.c_char.from_buffer(_page))
_EXEC = mmap.PROT_READ | mmap.PROT_EXEC

# Each is here with all that it needs: nothing can be loaded any more when it is made.
CALLS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "open": lambda: os.open("/", os.O_RDONLY),
    "stat": lambda: os.stat("/"),
    "create": lambda: os.open("/x", os.O_CREAT | os.O_WRONLY),
    "unlink": lambda: os.unlink("/x"),
    "socket": lambda: socket.socket(socket.AF_INET),
    "connect": lambda: _libc.connect(2, b"", 0),
    "fork": os.fork,
    "clone3": lambda: _libc.syscall(435, 0, 0),
    "execve": lambda: os.execve("/bin/sh", ["sh"], {}),
    "kill": lambda: os.kill(1, signal.SIGTERM),
    "executable memory": lambda: mmap.mmap(-1, mmap.PAGESIZE, prot=_EXEC),
    "memory made executable": lambda: _libc.mprotect(
        ctypes.c_void_p(_address), ctypes.c_size_t(mmap.PAGESIZE), _EXEC
    ),
    "ptrace": lambda: _libc.ptrace(16, 1, 0, 0),
    "setresuid": lambda: os.setresuid(0, 0, 0),
    "prctl": lambda: _libc.prctl(4, 1, 0, 0, 0),  # be dumpable again
    "munlockall": _libc.munlockall,
    "memfd_create": lambda: os.memfd_create("x"),
    "unshare": lambda: linux.unshare(linux.CLONE_NEWUSER),
    "bpf": lambda: _libc.syscall(321 if os.uname().machine == "x86_64" else 280, 0, 0, 0),
}


def fail(_: object) -> None:
    raise OSError(errno.EPERM, "injected")


def main() -> None:
    what, which = sys.argv[1:3]
    del sys.argv[1:3]
    if what == "fault":
        names = [name for name, _ in signer.STEPS]
        signer.STEPS[names.index(which)] = (which, fail)
    elif what == "machine":
        change = os.setresuid

        def setresuid(real: int, effective: int, saved: int) -> None:
            change(real, effective, saved)
            prctl.set_dumpable(1)

        os.setresuid = setresuid
    else:
        made, call = signer.pae, CALLS[which]

        def pae(statement: bytes) -> bytes:
            call()
            return made(statement)

        signer.pae = pae
    signer.main()


if __name__ == "__main__":
    main()
