"""Identity: web's end of a real signer, and of one that does not behave."""

import asyncio
import base64
import json
import os
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import VerifyKey

from jobs import identity
from jobs.identity import Identity
from sandbox import channel, key
from sandbox.errors import SandboxError
from sandbox.model import MIB
from tests.sandbox.signed import PAE, Signer

HELLO = {"op": "hello", "public": base64.b64encode(bytes(32)).decode()}
SIGNATURE = base64.b64encode(bytes(64)).decode()


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    key.make(str(tmp_path / "key"))
    signer = Signer(tmp_path / "key")
    try:
        yield signer
    finally:
        signer.process.kill()
        signer.close()


def with_identity(signer: Signer, do: Callable[[Identity], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        one = Identity(signer.end)
        await one.start()
        try:
            return await do(one)
        finally:
            one.close()

    return asyncio.run(whole())


def with_liar(do: Callable[[Identity, Any], Awaitable[Any]], hello: Any = HELLO) -> Any:
    """`do` gets the other end too, from which the test says what it likes."""

    async def whole() -> Any:
        ours, theirs = channel.pair()
        theirs.setblocking(False)
        one = Identity(ours)
        try:
            channel.send(theirs, hello)
            async with asyncio.timeout(30):
                await one.start()
                return await do(one, theirs)
        finally:
            one.close()
            theirs.close()

    return asyncio.run(whole())


def is_signed(one: Identity, statement: bytes, signature: bytes) -> bool:
    public = VerifyKey(base64.b64decode(one.worker_id))
    public.verify(PAE % (len(statement), statement), signature)
    return len(signature) == 64


async def taken(end: Any) -> channel.Message:
    """The next question; its descriptor is let go."""
    while True:
        try:
            message, fds = channel.receive(end, 1)
        except BlockingIOError:
            await asyncio.sleep(0.001)
        else:
            for fd in fds:
                os.close(fd)
            return message


def test_a_signature_verifies_with_the_worker_id(signer: Signer) -> None:
    async def do(one: Identity) -> None:
        assert one.alive and len(one.worker_id) == 44
        for size in (2, 70_000, 5 * MIB):
            statement = os.urandom(size)
            assert is_signed(one, statement, await one.sign(statement))

    with_identity(signer, do)


def test_many_at_once_each_get_their_own(signer: Signer) -> None:
    async def do(one: Identity) -> None:
        statements = [b"%d" % n * (n % 7 * 20_000 + 1) for n in range(200)]
        signatures = await asyncio.gather(*map(one.sign, statements))
        assert all(
            is_signed(one, statement, signature)
            for statement, signature in zip(statements, signatures, strict=True)
        )

    with_identity(signer, do)


def test_whoever_leaves_disturbs_nobody_else(signer: Signer) -> None:
    async def do(one: Identity) -> None:
        for size in (10, 3 * MIB):
            tasks = [asyncio.ensure_future(one.sign(b"%d" % n + bytes(size))) for n in range(60)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            signatures = await asyncio.gather(*tasks, return_exceptions=True)
            for n, signature in enumerate(signatures):
                if n % 2:
                    assert isinstance(signature, bytes)
                    assert is_signed(one, b"%d" % n + bytes(size), signature)
        assert one.alive

    with_identity(signer, do)
    assert not [fd for fd in _own_descriptors() if "sandrun" in fd]


def _own_descriptors() -> list[str]:
    return [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{fd}")
    ]


def test_a_statement_that_is_too_large_is_refused_and_the_next_one_signed(signer: Signer) -> None:
    async def do(one: Identity) -> None:
        with pytest.raises(SandboxError, match="signer: The statement is larger"):
            await one.sign(bytes(64 * MIB + 1))
        assert is_signed(one, b"{}", await one.sign(b"{}"))

    with_identity(signer, do)


def test_a_large_statement_does_not_hold_the_loop(signer: Signer) -> None:
    async def do(one: Identity) -> None:
        statement, worst = bytes(64 * MIB), 0.0
        task = asyncio.ensure_future(one.sign(statement))
        while not task.done():
            started = time.process_time()  # of ours alone: the machine may be busy
            await asyncio.sleep(0)
            worst = max(worst, time.process_time() - started)
            await asyncio.sleep(0.001)
        await task
        assert worst < 0.02

    with_identity(signer, do)


def test_when_the_signer_dies_whoever_waits_hears_of_it_at_once(signer: Signer) -> None:
    async def do(one: Identity) -> None:
        os.kill(signer.pid, signal.SIGSTOP)
        tasks = [asyncio.ensure_future(one.sign(b"%d" % n)) for n in range(40)]
        await asyncio.sleep(0.01)
        os.kill(signer.pid, signal.SIGKILL)
        started = time.monotonic()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(found, SandboxError) and found.step == "signer"
        assert time.monotonic() - started < identity.SIGN_SECONDS / 2
        assert not one.alive
        with pytest.raises(SandboxError):
            await one.sign(b"{}")

    with_identity(signer, do)


def test_a_signer_that_stands_still_is_an_error_and_no_pile_and_goes_on_later(
    signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "SIGN_SECONDS", 0.3)

    async def do(one: Identity) -> None:
        os.kill(signer.pid, signal.SIGSTOP)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            tasks = [one.sign(b"%d" % n) for n in range(100)]
            for found in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(found, SandboxError), found
                assert "no signature in 0.3 s" in str(found)
        assert len(os.listdir("/proc/self/fd")) == before
        assert one.alive
        os.kill(signer.pid, signal.SIGCONT)
        monkeypatch.setattr(identity, "SIGN_SECONDS", 30.0)
        assert is_signed(one, b"{}", await one.sign(b"{}"))
        signatures = await asyncio.gather(*(one.sign(b"%d" % n) for n in range(50)))
        assert all(is_signed(one, b"%d" % n, found) for n, found in enumerate(signatures))

    with_identity(signer, do)


def test_a_slow_signer_is_waited_for_as_long_as_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else many large results of one client would be the failure of another's small one."""
    monkeypatch.setattr(identity, "SIGN_SECONDS", 1.0)

    async def do(one: Identity, end: Any) -> None:
        began = time.monotonic()
        tasks = [asyncio.ensure_future(one.sign(b"%d" % n)) for n in range(25)]
        for _ in tasks:
            id = (await taken(end))["id"]
            await asyncio.sleep(0.06)  # so slow it is
            channel.send(end, {"op": "signed", "id": id, "signature": SIGNATURE})
        assert await asyncio.gather(*tasks) == [bytes(64)] * 25
        assert time.monotonic() - began > 1.2

    with_liar(do)


def test_a_pause_in_which_nobody_asked_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "SIGN_SECONDS", 1.0)

    async def do(one: Identity, end: Any) -> None:
        for pause in (0.0, 0.7):
            await asyncio.sleep(pause)
            asked = asyncio.ensure_future(one.sign(b"{}"))
            id = (await taken(end))["id"]
            await asyncio.sleep(pause)
            channel.send(end, {"op": "signed", "id": id, "signature": SIGNATURE})
            assert await asked == bytes(64)

    with_liar(do)


def test_without_a_descriptor_to_spare_it_is_an_error_of_ours_and_the_next_is_signed(
    signer: Signer,
) -> None:
    async def do(one: Identity) -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            for _ in range(40):
                with pytest.raises(SandboxError, match="signer: Too many open files"):
                    await one.sign(b"{}")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert is_signed(one, b"{}", await one.sign(b"{}"))

    with_identity(signer, do)


def test_after_close_there_is_no_signer_and_no_signature(signer: Signer) -> None:
    async def do(one: Identity) -> None:
        one.close()
        one.close()
        assert not one.alive
        with pytest.raises(SandboxError, match="signer: it is gone"):
            await one.sign(b"{}")

    with_identity(signer, do)
    assert signer.process.wait(30) == 0


@pytest.mark.parametrize(
    "hello",
    [{}, {"op": "hello"}, {"op": "signed", "public": HELLO["public"]},
     {"op": "hello", "public": 1}, {"op": "hello", "public": "*" * 44},
     {"op": "hello", "public": base64.b64encode(bytes(31)).decode()}],
    ids=json.dumps,
)  # fmt: skip
def test_a_hello_that_names_nobody_is_an_error(hello: Any) -> None:
    async def do(one: Identity, end: Any) -> None:
        raise AssertionError("it must not start")

    with pytest.raises(SandboxError, match="signer: it does not speak as agreed"):
        with_liar(do, hello)


def test_who_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "SIGN_SECONDS", 0.2)

    async def whole() -> None:
        ours, theirs = channel.pair()
        with theirs, pytest.raises(SandboxError, match="who it is"):
            await Identity(ours).start()

    asyncio.run(whole())


@pytest.mark.parametrize(
    "answer",
    [{}, {"op": "signed"}, {"op": "signed", "id": 1}, {"op": "signed", "id": [], "signature": ""},
     {"op": "signed", "id": 1, "signature": base64.b64encode(bytes(63)).decode()},
     {"op": "signed", "id": 1, "signature": "*"}, {"op": "signed", "id": 1, "signature": 5},
     {"op": "signed", "id": 2, "signature": SIGNATURE}, {"op": "refused", "id": 1},
     {"op": "else", "id": 1, "signature": SIGNATURE}, {"op": "hello", "public": "x"}],
    ids=json.dumps,
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_the_end_and_no_signature(answer: Any) -> None:
    async def do(one: Identity, end: Any) -> None:
        asked = asyncio.ensure_future(one.sign(b"{}"))
        assert (await taken(end))["op"] == "sign"
        channel.send(end, answer)
        with pytest.raises(SandboxError, match="signer: "):
            await asked
        assert not one.alive

    with_liar(do)


@pytest.mark.parametrize(
    "answer", [{"op": "signed", "signature": SIGNATURE}, {"op": "refused", "why": "No."}]
)
def test_an_answer_for_somebody_who_has_left_is_taken_and_forgotten(answer: Any) -> None:
    async def do(one: Identity, end: Any) -> None:
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        for _ in range(40):
            leaves = asyncio.ensure_future(one.sign(b"{}"))
            id = (await taken(end))["id"]
            leaves.cancel()
            channel.send(end, {**answer, "id": id})
            asked = asyncio.ensure_future(one.sign(b"{}"))
            id = (await taken(end))["id"]
            channel.send(end, {"op": "signed", "id": id, "signature": SIGNATURE})
            assert await asked == bytes(64)
        assert one.alive and not faults

    with_liar(do)


def test_a_second_answer_is_the_end() -> None:
    async def do(one: Identity, end: Any) -> None:
        asked = asyncio.ensure_future(one.sign(b"{}"))
        id = (await taken(end))["id"]
        channel.send(end, {"op": "signed", "id": id, "signature": SIGNATURE})
        assert await asked == bytes(64)
        channel.send(end, {"op": "signed", "id": id, "signature": SIGNATURE})
        with pytest.raises(SandboxError):
            await one.sign(b"{}")
        assert not one.alive

    with_liar(do)
