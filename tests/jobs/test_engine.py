"""The line, the slots, the end and the forgetting of jobs."""

import asyncio
import hashlib
import os
import unittest

from jobs.bundle import Upload
from jobs.conf import Config
from jobs.engine import Engine
from jobs.errors import Full, UnknownJob, Unready
from jobs.job import Job
from jobs.manifest import Manifest
from jobs.memory import MemoryFile
from sandbox.errors import BundleRefused, SandboxError
from sandbox.model import Bundle, Member
from tests.fakes import FakeRunner, ManualClock

MANIFEST = Manifest(
    entrypoint="main.py",
    interpreter="python3",
    steps=1,
    args=(),
    env={},
    stdin="",
    outputs=(),
    timeout=300,
    memory_mb=512,
    cpu_seconds=0.0,
)


def upload(content: bytes = b"print(1)") -> Upload:
    memory = MemoryFile()
    memory.write(content)
    member = Member("main.py", len(content), 0, 0o644, hashlib.sha256(content).hexdigest())
    return Upload(Bundle("loose", memory.fd, (member,)), memory, None)


class EngineCase(unittest.IsolatedAsyncioTestCase):
    hold = False
    config = Config(slots=2, queue_length=3)

    async def asyncSetUp(self) -> None:
        self.clock = ManualClock()
        self.runner = FakeRunner(hold=self.hold)
        self.engine = Engine(self.runner, self.config, self.clock)
        self.addAsyncCleanup(self.engine.close)

    def submit(self) -> Job:
        return self.engine.submit(MANIFEST, upload())

    async def run_one(self) -> Job:
        job = self.submit()
        await asyncio.wait_for(job.over.wait(), 5)
        return job


class Running(EngineCase):
    async def test_exit_code_zero_completes_without_a_reason(self) -> None:
        job = await self.run_one()
        self.assertEqual((job.state, job.reason, job.error), ("completed", None, None))

    async def test_another_end_fails_with_its_reason(self) -> None:
        for reason, code in (("exit", 1), ("timeout", None), ("memory", None), ("signal", None)):
            self.runner.verdict = {"reason": reason, "exit_code": code}
            job = await self.run_one()
            self.assertEqual((job.state, job.reason, job.error), ("failed", reason, None))

    async def test_our_faults_name_the_step_and_free_the_slot(self) -> None:
        for error, word in (
            (SandboxError("mount", 13), "mount: Permission denied"),
            (BundleRefused("the archive is cut off"), "the archive is cut off"),
        ):
            self.runner.error = error
            job = await self.run_one()
            self.assertEqual((job.state, job.reason), ("failed", "sandbox_error"))
            self.assertIn(word, job.error or "")
        self.runner.error = None
        self.assertEqual((await self.run_one()).state, "completed")

    async def test_a_bug_fails_one_job_and_is_reported_without_its_message(self) -> None:
        self.runner.error = ValueError("job-secret")
        with self.assertLogs("jobs.engine", "ERROR") as logged:
            job = await self.run_one()
        self.assertEqual((job.state, job.reason), ("failed", "sandbox_error"))
        self.assertIn("ValueError", job.error or "")
        self.assertNotIn("job-secret", (job.error or "") + "".join(logged.output))
        self.runner.error = None
        self.assertEqual((await self.run_one()).state, "completed")

    async def test_the_upload_is_given_back_at_the_end(self) -> None:
        job = await self.run_one()
        with self.assertRaises(OSError):
            os.fstat(job.bundle.fd)
        self.assertEqual(self.engine.store.held_bytes, 0)

    async def test_a_truncated_log_is_a_limit_that_was_hit(self) -> None:
        self.runner.stdout = bytes((10 << 20) + 1)
        self.assertEqual((await self.run_one()).limits_hit, ("log",))


class Waiting(EngineCase):
    hold = True

    async def test_first_come_first_served_in_so_many_slots(self) -> None:
        jobs = [self.submit() for _ in range(5)]
        self.assertEqual([job.state for job in jobs], ["running"] * 2 + ["queued"] * 3)
        self.assertEqual([self.engine.position(job) for job in jobs], [0, 0, 1, 2, 3])
        self.runner.release()
        await asyncio.gather(*(job.over.wait() for job in jobs))
        self.assertEqual(self.runner.ran, jobs)

    async def test_a_full_queue_refuses_and_takes_again(self) -> None:
        jobs = [self.submit() for _ in range(5)]
        with self.assertRaises(Full) as caught:
            self.submit()
        self.assertGreater(caught.exception.retry_after, 0)
        self.runner.release()
        await asyncio.gather(*(job.over.wait() for job in jobs))
        self.submit()

    async def test_a_queued_job_is_cancelled_at_once(self) -> None:
        jobs = [self.submit() for _ in range(3)]
        self.engine.cancel(jobs[2])
        self.assertEqual((jobs[2].state, jobs[2].reason), ("failed", "cancelled"))
        self.assertTrue(jobs[2].over.is_set())
        self.assertNotIn(jobs[2], self.runner.ran)

    async def test_a_running_job_is_stopped_by_the_runner(self) -> None:
        job = self.submit()
        self.engine.cancel(job)
        self.engine.cancel(job)
        await job.over.wait()
        self.assertEqual((job.state, job.reason), ("failed", "cancelled"))
        self.engine.cancel(job)  # nothing is left to do

    async def test_closing_ends_all_and_takes_no_more(self) -> None:
        jobs = [self.submit() for _ in range(4)]
        await self.engine.close()
        self.assertEqual({(job.state, job.reason) for job in jobs}, {("failed", "cancelled")})
        self.assertTrue(self.runner.closed)
        self.assertEqual(len(self.engine.store), 0)
        with self.assertRaises(Unready):
            self.submit()

    async def test_without_a_sandbox_nothing_is_taken(self) -> None:
        self.runner.alive = False
        with self.assertRaises(Unready):
            self.submit()


class Forgetting(EngineCase):
    config = Config(slots=1, ttl_seconds=300)

    async def test_a_job_is_forgotten_so_long_after_its_end(self) -> None:
        self.runner.files = {"a.txt": b"text"}
        job = await self.run_one()
        self.assertEqual(self.engine.store.held_bytes, 4)
        self.assertEqual(self.engine.store.expires_at(job), self.clock.moment.wall + 300)
        self.clock.forward(299.9)
        self.engine.sweep()
        self.assertIs(self.engine.store.find(job.id), job)
        self.clock.forward(0.1)
        self.engine.sweep()
        with self.assertRaises(UnknownJob):
            self.engine.store.find(job.id)
        self.assertEqual((self.engine.store.held_bytes, job.outputs), (0, {}))

    async def test_what_is_not_over_is_not_forgotten(self) -> None:
        self.runner = FakeRunner(hold=True)
        self.engine.runner = self.runner
        jobs = [self.submit() for _ in range(2)]
        self.clock.forward(10_000)
        self.engine.sweep()
        self.assertEqual([job.state for job in jobs], ["running", "queued"])
        self.assertIsNone(self.engine.store.expires_at(jobs[0]))

    async def test_a_download_under_way_keeps_its_bytes(self) -> None:
        self.runner.files = {"a.txt": b"text"}
        job = await self.run_one()
        reader = job.open_outputs()
        self.clock.forward(300)
        self.engine.sweep()
        self.assertEqual(reader.read(0, 4), b"text")

    async def test_the_engine_sweeps_by_itself(self) -> None:
        self.engine.config = Config(sweep_seconds=0.001)
        swept = asyncio.Event()
        self.engine.sweep = swept.set  # type: ignore[method-assign]
        self.engine.start()
        await asyncio.wait_for(swept.wait(), 5)


class Budget(EngineCase):
    config = Config(held_bytes=200 << 20)

    async def test_memory_for_jobs_is_bounded(self) -> None:
        self.engine.admit(200 << 20)
        self.runner.files = {"a": b"x"}
        await self.run_one()
        with self.assertRaises(Full):
            self.engine.admit(200 << 20)


class Ids(EngineCase):
    async def test_ids_are_128_random_bits_and_no_token_is_an_id(self) -> None:
        jobs = [await self.run_one() for _ in range(50)]
        self.assertEqual(len({job.id for job in jobs} | {job.owner_token for job in jobs}), 100)
        for job in jobs:
            self.assertRegex(job.id, r"^job-[0-9a-f]{32}$")

    async def test_the_hash_covers_manifest_and_files(self) -> None:
        first, again = await self.run_one(), await self.run_one()
        self.assertEqual(first.hash, again.hash)
        other = self.engine.submit(MANIFEST, upload(b"print(2) "))
        self.assertNotEqual(first.hash, other.hash)
