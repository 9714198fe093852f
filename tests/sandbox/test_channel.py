"""The packets between web, launcher and inside. Pure: two ends in one process."""

import array
import os
import socket
from collections.abc import Iterator

import pytest

from sandbox import channel
from sandbox.channel import MAX_BYTES, MAX_DESCRIPTORS, ProtocolError

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Pair]:
    before = sorted(os.listdir("/proc/self/fd"))
    ours, theirs = channel.pair()
    with ours, theirs:
        yield ours, theirs
    assert sorted(os.listdir("/proc/self/fd")) == before  # whatever was received is closed


def raw(end: socket.socket, packet: bytes, fds: list[int] | None = None) -> None:
    rights = array.array("i", fds or []).tobytes()
    end.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if fds else [])


def test_a_message_arrives_as_it_was_sent(ends: Pair) -> None:
    message = {"op": "launch", "id": 7, "text": "ü\n\udcff", "none": None, "list": [1, 2.5]}
    channel.send(ends[0], message)
    assert channel.receive(ends[1]) == (message, [])


def test_packets_keep_their_borders(ends: Pair) -> None:
    for number in range(3):
        channel.send(ends[0], {"n": number})
    assert [channel.receive(ends[1])[0]["n"] for _ in range(3)] == [0, 1, 2]


def test_descriptors_arrive_and_are_not_inherited(ends: Pair) -> None:
    fd = channel.memfd("x", b"content")
    channel.send(ends[0], {}, (fd, fd))
    os.close(fd)
    _, received = channel.receive(ends[1], 2)
    assert len(received) == 2
    for fd in received:
        assert os.pread(fd, 10, 0) == b"content" and not os.get_inheritable(fd)
        os.close(fd)


def test_the_longest_message_arrives(ends: Pair) -> None:
    message = {"x": "a" * (MAX_BYTES - 9)}
    channel.send(ends[0], message)
    assert channel.receive(ends[1])[0] == message


def test_a_message_that_is_too_long_is_not_sent(ends: Pair) -> None:
    with pytest.raises(ProtocolError, match="too long"):
        channel.send(ends[0], {"x": "a" * (MAX_BYTES - 8)})
    ends[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        channel.receive(ends[1])


@pytest.mark.parametrize("size", [MAX_BYTES + 1, MAX_BYTES + 2, 2 * MAX_BYTES])
def test_a_packet_that_is_too_long_is_refused(ends: Pair, size: int) -> None:
    fd = os.dup(0)
    raw(ends[0], b'{"x": 1}'.ljust(size), [fd])
    os.close(fd)
    with pytest.raises(ProtocolError, match="too long"):
        channel.receive(ends[1], 1)


@pytest.mark.parametrize(("sent", "allowed"), [(1, 0), (3, 2), (4, 3)])
def test_too_many_descriptors_are_refused_and_closed(ends: Pair, sent: int, allowed: int) -> None:
    raw(ends[0], b"{}", [0] * sent)
    with pytest.raises(ProtocolError, match="too many"):
        channel.receive(ends[1], allowed)


@pytest.mark.parametrize("sent", [MAX_DESCRIPTORS + 1, 50, 253])
def test_more_descriptors_than_any_message_has_are_refused(ends: Pair, sent: int) -> None:
    raw(ends[0], b"{}", [0] * sent)
    with pytest.raises(ProtocolError):
        channel.receive(ends[1], MAX_DESCRIPTORS)


NO_OBJECT = {
    "text": b"hello", "half": b'{"op": ', "binary": bytes(range(256)), "a list": b"[]",
    "a number": b"1", "a string": b'"x"', "null": b"null", "true": b"true", "two": b"{}{}",
    "nested": b"[" * 60_000, "nested objects": b'{"a":' * 10_000, "no utf-8": b'{"a": "\xff"}',
    "utf-16 cut": "{}".encode("utf-16")[:-1], "a long number": b'{"a": ' + b"9" * 5000 + b"}",
    "a nul": b"\0", "spaces": b"   ",
}  # fmt: skip


@pytest.mark.parametrize("case", NO_OBJECT)
def test_what_is_no_json_object_is_refused_and_its_descriptors_closed(
    ends: Pair, case: str
) -> None:
    raw(ends[0], NO_OBJECT[case], [0, 1])
    with pytest.raises(ProtocolError, match="no JSON"):
        channel.receive(ends[1], 2)


def test_the_end_is_no_message(ends: Pair) -> None:
    ends[0].close()
    with pytest.raises(ProtocolError, match="gone"):
        channel.receive(ends[1])


def test_an_empty_packet_is_as_the_end(ends: Pair) -> None:
    raw(ends[0], b"", [0])
    with pytest.raises(ProtocolError, match="gone"):
        channel.receive(ends[1], 1)


def test_a_reset_is_as_the_end(ends: Pair) -> None:
    channel.send(ends[1], {"never": "read"})
    ends[0].close()
    with pytest.raises(ProtocolError):
        channel.receive(ends[1])


def test_nothing_yet_is_no_error_of_the_other_side(ends: Pair) -> None:
    ends[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        channel.receive(ends[1])


def test_sending_to_nobody_is_said_without_a_signal(ends: Pair) -> None:
    ends[1].close()
    with pytest.raises(ProtocolError):
        channel.send(ends[0], {})


def test_a_side_that_does_not_read_is_said(ends: Pair) -> None:
    ends[0].setblocking(False)
    with pytest.raises(ProtocolError):
        for _ in range(10_000):
            channel.send(ends[0], {"x": "a" * 1000})


def test_a_memfd_holds_its_content_for_ever() -> None:
    content = os.urandom(3_000_000)
    fd = channel.memfd("x", content)
    try:
        assert channel.sealed(fd) and os.pread(fd, len(content) + 1, 0) == content
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def test_a_memfd_is_not_sealed_by_itself() -> None:
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    try:
        assert not channel.sealed(fd)
        channel.seal(fd)
        assert channel.sealed(fd)
    finally:
        os.close(fd)
