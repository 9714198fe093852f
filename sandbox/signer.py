"""Signer: the one process that has the worker's key, and does nothing but sign receipts with it.

    python -I -m sandbox.signer FD FILE

The keeper starts it as root, as which it opens FILE. The key is read when it is somebody else in an
empty root without a network, whom nobody but root can look into; before it says a word it has no
capability any more, and can open, reach and execute nothing.

Message from web                               answers
  {"op": "sign", "id"} + a sealed memfd        {"op": "signed", "id", "signature"}, or
                                               {"op": "refused", "id", "why"}
Unasked: {"op": "hello", "public"}, once it is ready. Anything else ends it, and so does web's end.
What is signed is never the bytes alone but the PAE of DSSE with one type, which is fixed here: no
message of web's makes a signature that means anything else than "this is a receipt".
"""

import base64
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn

import pyseccomp
from nacl import bindings

from sandbox import channel, key, linux, privileges, seccomp
from sandbox.model import MIB, SIGNER_UID

TYPE: Final = b"application/vnd.in-toto+json"
MOST_BYTES: Final = 64 * MIB  # of a statement
MOST_ID: Final = 1 << 53
_DESCRIPTORS = 16

# What Python, libsodium and the conversation need. Nothing of it opens, connects, starts, signals
# or looks at anything; memory that can be executed is left out below.
_CALLS = (
    "recvmsg", "sendmsg", "read", "pread64", "write", "lseek", "close", "fcntl", "brk", "munmap",
    "mremap", "madvise", "futex", "restart_syscall", "rt_sigreturn", "exit", "exit_group",
    "clock_gettime",  # a call only where the clock cannot be read without one
)  # fmt: skip
_MAPPING = {"mmap": 2, "mprotect": 2}  # the argument with the protection
_PROT_EXEC = 0x4


class _Unfit(Exception):
    """A step did not succeed: a sentence."""


class Start:
    """What the steps work on, and the key in the end."""

    def __init__(self, end: int, file: int) -> None:
        self.end = socket.socket(fileno=end)  # ours of the pair
        self.file = file  # opened and not yet read
        self.filter = build_filter()
        self.parent = os.getppid()
        self.public = self.secret = b""


def _limits(start: Start) -> None:
    for name, number in {
        resource.RLIMIT_CORE: 1,  # not 0: 1 also keeps a core from being piped to a helper
        resource.RLIMIT_NOFILE: _DESCRIPTORS,
        resource.RLIMIT_NPROC: 0,
    }.items():
        resource.setrlimit(name, (number, number))


def _memory(start: Start) -> None:
    """Never on a swap device: all that is there, and all that comes until the key is."""
    with suppress(OSError, ValueError):  # who may not, has CAP_IPC_LOCK or was given enough
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    # A locked stack may not be able to grow once the capability is gone: this is the most that
    # it will ever need, since nothing else goes as deep.
    with suppress(RecursionError):
        json.loads("[" * channel.MAX_BYTES)
    try:
        linux.lock_memory(and_later=True)
    except OSError:
        raise _Unfit(
            "the key must not reach a swap device, but its memory cannot be locked: lift that "
            "limit (systemd: LimitMEMLOCK=infinity; podman, docker: --ulimit memlock=-1:-1)"
        ) from None


def _namespaces(start: Start) -> None:
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS)


def _root(start: Start) -> None:
    """An empty one. Whatever Python has not loaded by now, it cannot load any more."""
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    mount = linux.memory_tmpfs({"size": "4096", "nr_inodes": "1", "mode": "0555"})
    linux.attach(mount, "/proc")  # any folder; covered in our own namespace only
    os.close(mount)
    linux.read_only("/proc")
    os.chdir("/proc")
    linux.pivot_root(".", ".")  # the old root now lies over the new one
    linux.umount(".", linux.MNT_DETACH)
    os.chdir("/")


def _identity(start: Start) -> None:
    os.setgroups([])
    privileges.keep_capabilities_over_uid_change()
    os.setresgid(SIGNER_UID, SIGNER_UID, SIGNER_UID)
    os.setresuid(SIGNER_UID, SIGNER_UID, SIGNER_UID)


def _key(start: Start) -> None:
    start.public, start.secret = key.read(start.file)
    os.close(start.file)
    # Not what comes later: statements are no secret, and may take more than we may lock.
    linux.lock_memory(and_later=False)


def _capabilities(start: Start) -> None:
    privileges.drop_capabilities()


def _no_new_privileges(start: Start) -> None:
    privileges.no_new_privileges()


def _hidden(start: Start) -> None:
    privileges.hide_memory()


def _death(start: Start) -> None:
    privileges.die_with_parent()
    if os.getppid() != start.parent:
        raise _Unfit("the keeper is gone")


def _descriptors(start: Start) -> None:
    kept = sorted({2, start.end.fileno(), start.file})
    for low, high in zip([-1, *kept], [*kept, 1 << 20], strict=True):
        os.closerange(low + 1, high)


def _filter(start: Start) -> None:
    linux.load_filter(start.filter)


STEPS: list[tuple[str, Callable[[Start], None]]] = [
    ("limits", _limits),
    ("memory", _memory),
    ("namespaces", _namespaces),
    ("root", _root),
    ("identity", _identity),
    ("hidden", _hidden),
    ("descriptors", _descriptors),
    ("key", _key),
    ("capabilities", _capabilities),
    ("no new privileges", _no_new_privileges),
    ("death", _death),
    ("seccomp", _filter),
]


def build_filter() -> bytes:
    """The BPF program before which all of it stands: what is not needed ends the signer."""
    tree = pyseccomp.SyscallFilter(pyseccomp.KILL_PROCESS)
    tree.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    for name in _CALLS:
        _allow(tree, name)
    for name, position in _MAPPING.items():
        _allow(tree, name, pyseccomp.Arg(position, pyseccomp.MASKED_EQ, _PROT_EXEC, 0))
    return seccomp.exported(tree)


def _allow(tree: pyseccomp.SyscallFilter, name: str, *args: pyseccomp.Arg) -> None:
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    if number >= 0:  # another architecture may not have it
        tree.add_rule(pyseccomp.ALLOW, number, *args)


# --- in service --------------------------------------------------------------------------------


def serve(end: socket.socket, public: bytes, secret: bytes) -> None:
    """Sign what web sends, until it is gone or speaks nonsense (ProtocolError)."""
    channel.send(end, {"op": "hello", "public": base64.b64encode(public).decode()})
    while True:
        message, fds = channel.receive(end, descriptors=1)
        try:
            answer = _answer(message, fds, secret)
        finally:
            for fd in fds:
                os.close(fd)
        channel.send(end, answer)


def _answer(message: channel.Message, fds: list[int], secret: bytes) -> dict[str, Any]:
    id = message.get("id")
    if set(message) != {"op", "id"} or message["op"] != "sign" or len(fds) != 1:
        raise channel.ProtocolError("web asks for what there is not")
    if type(id) is not int or not 0 <= id < MOST_ID:
        raise channel.ProtocolError("web asks with no number")
    try:
        statement = _statement(fds[0])
    except ValueError as error:
        return {"op": "refused", "id": id, "why": str(error)}
    signature = bindings.crypto_sign(pae(statement), secret)[: bindings.crypto_sign_BYTES]
    return {"op": "signed", "id": id, "signature": base64.b64encode(signature).decode()}


def _statement(fd: int) -> bytes:
    """The bytes behind `fd`, which nobody can change any more. ValueError: a sentence."""
    try:
        is_sealed = channel.sealed(fd)
    except OSError:
        raise ValueError("The statement is not in a memfd.") from None
    if not is_sealed:
        raise ValueError("The statement could still be changed: its memfd is not sealed.")
    size = os.lseek(fd, 0, os.SEEK_END)
    if size > MOST_BYTES:
        raise ValueError(f"The statement is larger than {MOST_BYTES} bytes.")
    pieces = bytearray()
    while len(pieces) < size and (piece := os.pread(fd, size - len(pieces), len(pieces))):
        pieces += piece
    return bytes(pieces)


def pae(statement: bytes) -> bytes:
    """What is signed: the pre-authentication encoding of DSSE version 1."""
    return b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE, len(statement), statement)


# --- the process -------------------------------------------------------------------------------


def main() -> None:
    """Start, serve, end. Never by Python's own way: that would open files for a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        _serve(int(sys.argv[1]), sys.argv[2])
    except BaseException as error:  # the edge of a process: what is told has nothing of the key
        _end(1, f"the signer ended: {type(error).__name__}")


def _serve(end: int, path: str) -> NoReturn:
    file = _opened(path)
    step = "privileges"
    try:
        privileges.check()
        start = Start(end, file)
        for name, do in STEPS:
            step = name
            do(start)
    except key.KeyRefused as error:
        _end(1, f"the worker key {path} {error}.")
    except _Unfit as error:
        _end(1, f"the signer cannot start: {error}.")
    except Exception as error:  # whatever it is, nothing is signed without every wall
        _end(1, f"the signer cannot start: step '{step}' did not succeed: {error}.")
    with suppress(channel.ProtocolError):
        serve(start.end, start.public, start.secret)
    _end(0)


def _opened(path: str) -> int:
    try:
        return key.open_file(path)
    except key.KeyRefused as error:
        _end(1, f"the worker key {path} {error}.")


def _end(code: int, sentence: str = "") -> NoReturn:
    if sentence:
        os.write(2, f"sandrun: {sentence}\n".encode(errors="backslashreplace"))
    os._exit(code)


if __name__ == "__main__":
    main()
