"""Messages between web, launcher and inside: one JSON object a packet, descriptors beside it.

Both ends treat the other as hostile: a packet that is too long, is cut, or is no JSON object
ends the connection (ProtocolError), and with it the sandbox, never the process that reads it.
"""

import array
import fcntl
import json
import os
import socket
from typing import Any

LAUNCHER_FD = "SANDRUN_LAUNCHER_FD"  # the variable that tells web its end of the pair
SIGNER_FD = "SANDRUN_SIGNER_FD"  # the same for the pair with the signer, where there is one
NOT_STARTED = 70  # exit code of a launcher that has told web why it could not get ready
MAX_BYTES = 65536
MAX_DESCRIPTORS = 6  # control socket, two pipes, three gauges

Message = dict[str, Any]


class ProtocolError(Exception):
    """The other side does not speak as agreed, or is gone."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; packets keep their borders, and the end of one is seen by the other."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: Message, descriptors: tuple[int, ...] = ()) -> None:
    """One packet. Raises ProtocolError when the other side is gone, or does not read."""
    packet = json.dumps(message).encode()
    if len(packet) > MAX_BYTES:
        raise ProtocolError(f"a message of {len(packet)} bytes is too long")
    rights = array.array("i", descriptors).tobytes()
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    try:
        end.sendmsg([packet], control, socket.MSG_NOSIGNAL)
    except OSError as error:
        raise ProtocolError(str(error)) from error


def receive(end: socket.socket, descriptors: int = 0) -> tuple[Message, list[int]]:
    """One packet and at most `descriptors` descriptors (owned by the caller, close-on-exec).

    Raises ProtocolError at the end or for anything unexpected, BlockingIOError when a
    non-blocking socket has nothing.
    """
    try:
        try:
            packet, control, flags, _ = _recvmsg(end)
        except ConnectionResetError:
            # The other side died with a packet of ours unread. The kernel says so once, and
            # first; what it had said before is still to be read.
            packet, control, flags, _ = _recvmsg(end)
    except BlockingIOError:
        raise
    except OSError as error:
        raise ProtocolError(str(error)) from error
    received = _descriptors(control)
    try:
        if not packet:
            raise ProtocolError("the other side is gone")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(packet) > MAX_BYTES:
            raise ProtocolError("a packet is too long")
        if len(received) > descriptors:
            raise ProtocolError("a packet carries too many descriptors")
        try:
            # Decoded here: json would guess other encodings, whose tables the launcher cannot load.
            message = json.loads(packet.decode())
        except (ValueError, RecursionError) as error:
            raise ProtocolError("a packet is no JSON") from error
        if not isinstance(message, dict):
            raise ProtocolError("a packet is no JSON object")
    except ProtocolError:
        for fd in received:
            os.close(fd)
        raise
    return message, received


def _recvmsg(end: socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
    return end.recvmsg(MAX_BYTES + 1, room, socket.MSG_CMSG_CLOEXEC)


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


_NOEXEC_SEAL = 0x8  # MFD_NOEXEC_SEAL, Linux 6.3; without it newer kernels write a line to dmesg


def new_memfd(name: str) -> int:
    """An empty memfd that can be sealed, and where the kernel can, never be executed."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _NOEXEC_SEAL)
    except OSError:  # an older kernel
        return os.memfd_create(name, flags)


def memfd(name: str, content: bytes) -> int:
    """`content` in memory behind a descriptor that nobody can write to any more."""
    fd = new_memfd(name)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        seal(fd)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
SEALS = 0x1 | 0x2 | 0x4 | 0x8  # no more seals, no shrinking, no growing, no writing


def seal(fd: int) -> None:
    """Make a memfd immutable for ever."""
    fcntl.fcntl(fd, _F_ADD_SEALS, SEALS)


def sealed(fd: int) -> bool:
    """Whether nobody can change the memfd any more."""
    return fcntl.fcntl(fd, _F_GET_SEALS) & SEALS == SEALS
