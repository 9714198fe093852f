"""What is signed of a job: every end, all that is served, and nothing before its end."""

import asyncio
import base64
import hashlib
import json
import os
from typing import Any
from unittest.mock import patch

import msgspec
from nacl.signing import VerifyKey

from jobs.api import wire
from jobs.conf import Config
from jobs.engine import Engine
from jobs.errors import StdinClosed, Unready
from jobs.job import Job, Moment
from jobs.logs import JobLog
from jobs.stdin import send
from jobs.terms import input_hash
from sandbox.errors import BundleRefused, SandboxError
from sandbox.model import Limits, Member
from sandrun.receipt import verify
from tests.fakes import FakeRunner, InProcessIdentity
from tests.jobs.test_engine import MANIFEST, EngineCase

LEAVES = {  # everything of the input that a client or an operator decides
    "entrypoint": "other.py",
    "args": ("a",),
    "env": {"A": "b"},
    "stdin": "typed",
    "stdin_live": True,
    "outputs": ("*.txt",),
    "timeout": 299,
    "memory_mb": 511,
    "cpu_seconds": 0.5,
}


def statement_of(job: Job) -> dict[str, Any]:
    assert job.receipt
    payload = json.loads(job.receipt.envelope)["payload"]
    said: dict[str, Any] = json.loads(base64.b64decode(payload))
    return said


class Signing(EngineCase):
    waits = False

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.identity = InProcessIdentity(self.waits)
        self.engine = Engine(self.runner, self.config, self.clock, self.identity)  # type: ignore[arg-type]
        self.addAsyncCleanup(self.engine.close)


class Every(Signing):
    async def test_end_is_signed_as_what_it_is(self) -> None:
        for verdict, status, code in (
            ({"reason": "exit", "exit_code": 0}, "completed", 0),
            ({"reason": "exit", "exit_code": 3}, "failed", 3),
            ({"reason": "signal", "exit_code": None, "signal": 11}, "failed", None),
            ({"reason": "timeout", "exit_code": None, "signal": 9}, "failed", None),
            ({"reason": "memory", "exit_code": None, "signal": 9}, "failed", None),
            ({"reason": "cpu", "exit_code": None, "signal": 9}, "failed", None),
        ):
            self.runner.verdict = verdict
            said = statement_of(await self.run_one())["predicate"]["verdict"]
            reason = None if status == "completed" else verdict["reason"]
            self.assertEqual(
                (said["status"], said["reason"], said["exit_code"]), (status, reason, code)
            )
            self.assertEqual(said["signal"], verdict.get("signal"))
            self.assertEqual((said["stage"], said["error"]), ("run", None))

    async def test_failure_of_ours_is_signed_too_and_names_no_walls(self) -> None:
        for error, word in (
            (SandboxError("mounts", 12), "mounts"),
            (BundleRefused("the archive is damaged"), "damaged"),
            (RuntimeError("quotes the client"), "RuntimeError"),
        ):
            self.runner.error = error
            with self.assertNoLogs() if word != "RuntimeError" else self.assertLogs():
                job = await self.run_one()
            said = statement_of(job)["predicate"]
            self.assertEqual(said["verdict"]["reason"], "sandbox_error")
            self.assertIn(word, said["verdict"]["error"])
            self.assertNotIn("quotes", said["verdict"]["error"])
            self.assertEqual((said["walls"], said["verdict"]["stage"]), (None, None))

    async def test_byte_of_the_envelope_is_what_the_signature_is_over(self) -> None:
        job = await self.run_one()
        assert job.receipt
        envelope = json.loads(job.receipt.envelope)
        payload = base64.b64decode(envelope["payload"])
        self.assertEqual(self.identity.signed, [payload])
        kind = envelope["payloadType"]
        signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
        [entry] = envelope["signatures"]
        self.assertEqual((entry["keyid"], entry["sig"]), (self.identity.worker_id, job.receipt[1]))
        VerifyKey(base64.b64decode(entry["keyid"])).verify(signed, base64.b64decode(entry["sig"]))

    async def test_receipt_is_of_integers_and_says_the_same_with_sorted_keys(self) -> None:
        job = await self.run_one(nonce="mine", cpu_seconds=0.1)
        [payload] = self.identity.signed
        self.assertEqual(payload, msgspec.json.encode(json.loads(payload), order="sorted"))
        json.loads(payload, parse_float=lambda text: self.fail(f"a float: {text}"))
        said = statement_of(job)["predicate"]
        self.assertEqual(said["job"]["nonce"], "mine")
        self.assertEqual((said["limits"]["cpu_usec"], said["usage"]["cpu_usec"]), (100_000, 12_345))

    async def test_output_and_log_is_there_with_its_hash(self) -> None:
        odd = os.fsdecode(b"results/\xff \xc3\xa4%.txt")
        self.runner.stdout, self.runner.stderr = b"out", b"error"
        self.runner.files = {"b.png": b"image", odd: b"text"}
        job = await self.run_one()
        said = {s["name"]: (s["digest"]["sha256"], s["annotations"]) for s in
                statement_of(job)["subject"]}  # fmt: skip
        self.assertEqual(list(said), sorted(said))
        self.assertEqual(
            said,
            {
                name: (hashlib.sha256(data).hexdigest(), {"bytes": len(data), **more})
                for name, data, more in (
                    ("logs/stderr", b"error", {}),
                    ("logs/stdout", b"out", {}),
                    ("outputs/b.png", b"image", {"mode": "0644", "type": "image"}),
                    (
                        "outputs/results/%FF%20%C3%A4%25.txt",
                        b"text",
                        {"mode": "0644", "type": "text"},
                    ),
                )
            },
        )
        counted = statement_of(job)["predicate"]["outputs"]
        self.assertEqual(counted, {"bytes": 9, "files": 2, "truncated": False})


class Before(Signing):
    waits = True

    async def test_it_is_signed_nobody_is_told_of_the_end(self) -> None:
        job = self.submit()
        heard = job.bell.next()
        await asyncio.wait_for(self.identity.is_asked.wait(), 5)
        self.assertEqual((job.state, job.receipt, self.engine.running), ("running", None, 1))
        self.identity.release()
        await asyncio.wait_for(job.over.wait(), 5)
        await heard
        self.assertIsNotNone(job.receipt)

    async def test_a_job_that_is_cancelled_in_line_is_signed_it_is_not_over(self) -> None:
        jobs = [self.submit() for _ in range(3)]
        self.engine.cancel(jobs[2])
        self.engine.cancel(jobs[2])  # while the first is on its way
        self.assertEqual((jobs[2].state, self.engine.position(jobs[2])), ("queued", 0))
        self.identity.release()
        await asyncio.wait_for(jobs[2].over.wait(), 5)
        self.assertEqual(self.engine.figures.jobs["failed", "cancelled"], 1)
        said = statement_of(jobs[2])["predicate"]
        self.assertEqual((said["verdict"]["reason"], said["walls"]), ("cancelled", None))
        self.assertEqual((said["job"]["started"], said["usage"]["cpu_usec"]), (None, 0))

    async def test_no_stdin_is_taken_of_which_the_receipt_would_not_know(self) -> None:
        jobs = [self.submit(stdin_live=True) for _ in range(3)]
        send(jobs[2], b"typed", False, None)
        self.engine.cancel(jobs[2])
        await asyncio.wait_for(self.identity.is_asked.wait(), 5)
        with self.assertRaises(StdinClosed):
            send(jobs[2], b"late", False, None)
        self.identity.release()
        await asyncio.wait_for(jobs[2].over.wait(), 5)
        digest = hashlib.sha256(b"typed").hexdigest()
        self.assertEqual(
            statement_of(jobs[2])["predicate"]["input"]["stdin"], {"bytes": 5, "sha256": digest}
        )

    async def test_the_end_of_the_server_waits_for_what_left_the_line(self) -> None:
        jobs = [self.submit() for _ in range(3)]
        self.engine.cancel(jobs[2])
        asyncio.get_running_loop().call_later(0.05, self.identity.release)
        await self.engine.close()
        self.assertTrue(jobs[2].is_over)

    async def test_a_signer_that_is_stuck_does_not_keep_the_server_from_its_end(self) -> None:
        self.runner.files = {"a": b"content"}
        before = len(os.listdir("/proc/self/fd"))
        jobs = [self.submit() for _ in range(3)]
        self.engine.cancel(jobs[2])
        with patch("jobs.engine.CLOSE_SECONDS", 0.05):
            await asyncio.wait_for(self.engine.close(), 5)
        for job in jobs:
            self.assertEqual((job.reason, job.receipt, job.outputs), ("cancelled", None, {}))
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    async def test_a_job_that_was_deleted_gives_all_back(self) -> None:
        self.runner.files = {"a": b"content"}
        job = self.submit()
        await asyncio.wait_for(self.identity.is_asked.wait(), 5)
        self.engine.delete(job)
        self.identity.release()
        await asyncio.wait_for(job.over.wait(), 5)
        self.assertEqual((job.held_bytes, job.receipt, self.engine.store.held_bytes), (0, None, 0))


class Told(Signing):
    async def answer(self, job: Job) -> Any:
        return json.loads(b"".join(wire.status(self.engine, job)))

    def check(self, answer: Any) -> None:
        verify(answer["receipt"], [self.identity.worker_id]).check_status(answer)

    async def test_every_rounding_is_that_of_whoever_verifies(self) -> None:
        for wall_usec in (0, 499, 500, 1500, 501_500, 503_500, 999_999, 299_999_501):
            for fraction in (0.0, 0.5, 0.9999998):
                self.clock.moment = Moment(1000.0, 1_800_000_000 + fraction)
                self.runner.verdict = {"wall_usec": wall_usec}
                self.check(await self.answer(await self.run_one()))

    async def test_walls_that_are_missing_are_those_of_a_run(self) -> None:
        self.runner.walls = {"cgroup": {}, "missing": ["cgroup-memory"]}
        answer = await self.answer(await self.run_one())
        self.assertEqual(answer["walls_missing"], ["cgroup-memory"])
        self.check(answer)
        self.runner.error = SandboxError("collect", 0, "nonsense")
        answer = await self.answer(await self.run_one())
        self.assertNotIn("walls_missing", answer)
        self.check(answer)

    async def test_an_answer_of_before_the_end_has_no_receipt_of_after_it(self) -> None:
        self.runner = self.engine.runner = FakeRunner(hold=True)
        job = self.submit()
        await asyncio.sleep(0)
        pieces = wire.status(self.engine, job)
        self.runner.release()
        await asyncio.wait_for(job.over.wait(), 5)
        answer = json.loads(b"".join(pieces))
        self.assertEqual((answer["status"], answer["receipt"]), ("running", None))

    async def test_without_the_signer_no_job_is_taken(self) -> None:
        self.identity.alive = False
        with self.assertRaises(Unready):
            self.submit()
        self.assertFalse(self.engine.alive)


class Unsigned(Signing):
    config = Config(slots=2)

    async def test_there_is_no_result_and_nothing_is_charged_or_left(self) -> None:
        self.runner.files = {"a": b"content"}
        before = len(os.listdir("/proc/self/fd"))
        self.identity.error = SandboxError("signer", 0, "it is gone")
        job = await self.run_one()
        self.assertEqual((job.state, job.reason, job.receipt), ("failed", "sandbox_error", None))
        assert job.error
        self.assertIn("signer: it is gone", job.error)
        self.assertEqual((job.outputs, job.result), ({}, None))
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        stand = self.engine.quota.standing("192.0.2.1")
        self.assertEqual((stand.active, stand.hourly_left), (0, stand.hourly_limit))

    async def test_by_a_fault_of_ours_the_log_does_not_quote_it(self) -> None:
        self.identity.error = ValueError("secret")
        with self.assertLogs() as logs:
            job = await self.run_one()
        self.assertEqual(job.reason, "sandbox_error")
        self.assertNotIn("secret", f"{job.error}{logs.output}")

    async def test_without_a_key_nothing_is_signed(self) -> None:
        self.engine = Engine(self.runner, self.config, self.clock)
        self.addAsyncCleanup(self.engine.close)
        self.assertIsNone((await self.run_one()).receipt)


class Held(Signing):
    config = Config(slots=2, quotas=False, log_bytes=1024)

    async def test_bytes_of_a_cut_log_are_those_that_are_signed(self) -> None:
        self.runner.stdout = bytes(range(256)) * 9
        job = await self.run_one()
        said = statement_of(job)
        self.assertEqual(
            said["predicate"]["logs"]["stdout"], {"bytes": 2304, "dropped": 2304 - 1024}
        )
        self.assertEqual(said["predicate"]["verdict"]["limits_hit"], ["log"])
        kept = self.runner.stdout[:512] + self.runner.stdout[-512:]
        self.assertEqual(said["subject"][1]["digest"]["sha256"], hashlib.sha256(kept).hexdigest())

    async def test_a_receipt_is_held_and_counted(self) -> None:
        job = await self.run_one()
        assert job.receipt
        self.assertEqual(job.held_bytes, len(job.receipt.envelope))
        self.engine.delete(job)
        self.assertEqual((job.receipt, self.engine.store.held_bytes), (None, 0))

    async def test_the_digest_of_a_log_is_that_of_what_is_read(self) -> None:
        for cap in (0, 1, 2, 7, 1024):
            for size in (0, 1, 6, 7, 8, 13, 20, 3000):
                log = JobLog(cap)
                for at in range(0, size, 5):
                    log.append("stdout", memoryview(bytes(range(256)) * 12)[at : min(at + 5, size)])
                kept, offset = b"", 0
                while piece := log.read("stdout", offset).data:
                    offset = log.read("stdout", offset).end
                    kept += piece
                digest = hashlib.sha256(kept).hexdigest()
                self.assertEqual(log.digest("stdout"), digest, (cap, size))


class Input(EngineCase):
    async def test_every_part_of_it_changes_the_hash(self) -> None:
        member = Member("main.py", 8, 0, 0o644, "00" * 32)
        terms = self.runner.terms(MANIFEST)
        hashes = [input_hash(MANIFEST, [member], terms)]
        for name, value in LEAVES.items():
            other = msgspec.structs.replace(MANIFEST, **{name: value})
            hashes.append(input_hash(other, [member], self.runner.terms(other)))
        for change in (
            {"path": "main.pi"}, {"path": "mai\u0308n.py"}, {"path": "ma\u00efn.py"},
            {"path": os.fsdecode(b"main\xff.py")}, {"mode": 0o755}, {"sha256": "01" * 32},
            {"size": 9},
        ):  # fmt: skip
            hashes.append(input_hash(MANIFEST, [member._replace(**change)], terms))
        for more in ({"interpreter": "pypy"}, {"version": "Fake 1.1"}, {"log_bytes": 1}):
            hashes.append(input_hash(MANIFEST, [member], terms._replace(**more)))
        for name in Limits._fields:
            limits = terms.limits._replace(**{name: getattr(terms.limits, name) + 1})
            hashes.append(input_hash(MANIFEST, [member], terms._replace(limits=limits)))
        hashes.append(input_hash(MANIFEST, [member, member._replace(path="b")], terms))
        hashes.append(input_hash(MANIFEST, [], terms))
        self.assertEqual(len(set(hashes)), len(hashes))

    async def test_what_does_not_decide_what_runs_does_not_change_it(self) -> None:
        members = [Member(path, 8, 0, 0o644, "00" * 32) for path in ("main.py", "b")]
        terms = self.runner.terms(MANIFEST)
        asked = {"ttl": 7, "nonce": "x", "burn_after_read": True, "warnings": ("w",)}
        other = msgspec.structs.replace(MANIFEST, **asked)
        self.assertEqual(
            input_hash(MANIFEST, members, terms), input_hash(other, members[::-1], terms)
        )
