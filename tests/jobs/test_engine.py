"""The line, the slots, the end and the forgetting of jobs."""

import asyncio
import hashlib
import os
import unittest
from collections.abc import Callable
from typing import Any

import msgspec

from jobs.bundle import Upload
from jobs.conf import Config
from jobs.engine import Engine
from jobs.errors import Full, NotOwner, OverQuota, UnknownJob, Unready
from jobs.job import Job
from jobs.manifest import Manifest
from jobs.memory import MemoryFile
from jobs.quota import Reservation
from jobs.terms import input_hash
from sandbox.errors import BundleRefused, SandboxError
from sandbox.model import Bundle, Gauge, Inspection, Member
from tests.fakes import FakeRunner, ManualClock

MANIFEST = Manifest(
    entrypoint="main.py",
    interpreter="python3",
    environment="",
    steps=1,
    args=(),
    env={},
    stdin="",
    outputs=(),
    timeout=300,
    memory_mb=512,
    cpu_seconds=0.0,
    ttl=0,
)


def upload(content: bytes = b"print(1)") -> Upload:
    memory = MemoryFile()
    memory.write(content)
    member = Member("main.py", len(content), 0, 0o644, hashlib.sha256(content).hexdigest())
    return Upload(Bundle("loose", memory.fd, (member,)), memory, None)


class EngineCase(unittest.IsolatedAsyncioTestCase):
    hold = False
    config = Config(slots=2, queue_length=3, quotas=False)

    async def asyncSetUp(self) -> None:
        self.clock = ManualClock()
        self.runner = FakeRunner(self.hold, self.config.log_bytes)
        self.engine = Engine(self.runner, self.config, self.clock)
        self.addAsyncCleanup(self.engine.close)

    def submit(self, client: str = "192.0.2.1", **changes: Any) -> Job:
        asked = msgspec.structs.replace(MANIFEST, **changes)
        with self.engine.quota.reserve(client) as reservation:
            return self.submitted(asked, upload(), reservation)

    def submitted(self, asked: Manifest, upload: Upload, reservation: Reservation) -> Job:
        terms = self.runner.terms(asked)
        hash = input_hash(asked, upload.bundle.members, terms)
        return self.engine.submit(asked, upload, terms, hash, reservation)

    async def run_one(self, **changes: Any) -> Job:
        job = self.submit(**changes)
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
        job = await self.run_one()
        self.assertEqual(job.limits_hit(job.result), ("log",))


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

    async def test_only_the_owner_token_shows_the_owner(self) -> None:
        job = self.submit()
        self.engine.check_owner(job, job.owner_token)
        for token in (None, "", "x", job.id, job.owner_token[:-1], "é"):
            with self.assertRaises(NotOwner):
                self.engine.check_owner(job, token)

    async def test_a_deleted_job_is_gone_at_once_and_frees_its_slot_as_it_ends(self) -> None:
        running, other, waiting = self.submit(), self.submit(), self.submit()
        fd = running.bundle.fd
        for job in (running, waiting):
            self.engine.delete(job)
            with self.assertRaises(UnknownJob):
                self.engine.store.find(job.id)
        os.fstat(fd)  # the sandbox may still read it
        await running.over.wait()
        with self.assertRaises(OSError):
            os.fstat(fd)
        self.assertEqual((self.engine.running, self.engine.waiting), (1, 0))
        self.assertEqual(self.engine.store.held_bytes, other.held_bytes)

    async def test_a_job_may_be_deleted_twice(self) -> None:
        job = self.submit()
        self.engine.delete(job)
        self.engine.delete(job)
        await job.over.wait()
        self.engine.delete(job)
        self.assertEqual((len(self.engine.store), self.engine.store.held_bytes), (0, 0))

    async def test_what_a_deleted_job_leaves_is_given_back(self) -> None:
        self.runner.files = {"a.txt": b"text"}
        job = self.submit()
        self.engine.store.forget([job])
        self.runner.release()
        await job.over.wait()
        self.assertEqual((job.held_bytes, job.read(lambda: None).size), (0, 0))

    async def test_a_job_that_waits_too_long_is_given_up(self) -> None:
        running, _, waiting = self.submit(), self.submit(), self.submit()
        self.clock.forward(3599)
        self.engine.sweep()
        self.assertEqual(waiting.state, "queued")
        self.clock.forward(1)
        self.engine.sweep()
        self.assertEqual((waiting.state, waiting.reason), ("failed", "cancelled"))
        self.assertIn("3600 s in line", waiting.error or "")
        self.assertEqual(running.state, "running")

    async def test_jobs_wait_for_memory_and_nobody_overtakes(self) -> None:
        self.engine.config = Config(slots=9, running_memory_mb=1024, quotas=False)
        jobs = [self.submit(memory_mb=mb) for mb in (512, 300, 400, 16)]
        self.assertEqual([job.state for job in jobs], ["running", "running", "queued", "queued"])
        self.engine.cancel(jobs[1])
        await jobs[1].over.wait()
        self.assertEqual([job.state for job in jobs[2:]], ["running", "running"])

    async def test_who_leaves_the_line_makes_room_for_who_waits_behind(self) -> None:
        self.engine.config = Config(slots=9, running_memory_mb=600, quotas=False)
        jobs = [self.submit(memory_mb=mb) for mb in (300, 512, 16)]
        self.engine.cancel(jobs[1])
        self.assertEqual([job.state for job in jobs], ["running", "failed", "running"])

    async def test_one_client_with_many_jobs_does_not_make_others_wait_for_all(self) -> None:
        self.engine.config = Config(slots=1, quotas=False)
        many = [self.submit("192.0.2.1") for _ in range(10)]
        few = [self.submit("192.0.2.2"), self.submit("192.0.2.3"), self.submit("192.0.2.2")]
        self.assertEqual([self.engine.position(job) for job in few], [1, 2, 4])
        self.assertEqual([self.engine.position(job) for job in many[:5]], [0, 3, 5, 6, 7])
        self.runner.release()
        await asyncio.gather(*(job.over.wait() for job in (*many, *few)))
        served = [job.client[-1] for job in self.runner.ran]
        self.assertEqual("".join(served), "1231211111111")

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
    config = Config(slots=1, ttl_seconds=300, quotas=False)

    async def test_the_submitter_may_ask_for_less_but_not_for_more(self) -> None:
        for asked, seconds in ((5, 5), (900, 300), (0, 300)):
            job = await self.run_one(ttl=asked)
            self.assertEqual(self.engine.expires_at(job), self.clock.moment.wall + seconds)

    async def test_a_job_is_forgotten_so_long_after_its_end(self) -> None:
        self.runner.files = {"a.txt": b"text"}
        job = await self.run_one()
        self.assertEqual(self.engine.store.held_bytes, 4 + 300 + len("a.txt"))
        self.assertEqual(self.engine.expires_at(job), self.clock.moment.wall + 300)
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
        self.clock.forward(3000)
        self.engine.sweep()
        self.assertEqual([job.state for job in jobs], ["running", "queued"])
        began = self.clock.moment.wall - 3000
        self.assertEqual(self.engine.expires_at(jobs[0]), began + 300 + 300)  # timeout and ttl
        self.assertEqual(self.engine.expires_at(jobs[1]), began + 3600 + 300 + 300)

    async def test_a_download_under_way_keeps_its_bytes(self) -> None:
        self.runner.files = {"a.txt": b"text"}
        job = await self.run_one()
        reader = job.read(lambda: None)
        self.clock.forward(300)
        self.engine.sweep()
        self.assertEqual(reader.read(0, 4), b"text")

    async def test_the_engine_sweeps_by_itself(self) -> None:
        self.engine.config = Config(sweep_seconds=0.001)
        swept = asyncio.Event()
        self.engine.sweep = swept.set  # type: ignore[method-assign]
        self.engine.start()
        await asyncio.wait_for(swept.wait(), 5)

    async def test_no_client_is_known_once_nobody_waits_or_runs(self) -> None:
        await self.run_one()
        self.assertEqual(list(self.engine._line._last_turn), ["192.0.2.1"])
        self.engine.sweep()
        self.assertEqual(list(self.engine._line._last_turn), [])


class Budget(EngineCase):
    config = Config(held_bytes=200 << 20)

    async def test_what_is_held_and_what_arrives_share_one_budget(self) -> None:
        self.assertTrue(self.engine.receive("other", 200 << 20))
        self.assertFalse(self.engine.receive("192.0.2.1", 1))
        with self.assertRaises(Full):
            self.submit()
        self.engine.let_go("other", 200 << 20)
        self.runner.files = {"a": b"x"}
        job = await self.run_one()
        self.assertFalse(self.engine.receive("other", 200 << 20))
        self.assertEqual(self.engine.room("other"), (200 << 20) - job.held_bytes)

    async def test_what_is_known_about_files_counts_too(self) -> None:
        self.runner.files = {f"folder/{number}": b"" for number in range(100)}
        job = await self.run_one()
        self.assertEqual(job.held_bytes, 100 * 300 + sum(map(len, self.runner.files)))
        self.assertEqual(job.bundle.members, ())

    async def test_the_texts_of_a_manifest_count_and_go_when_it_is_over(self) -> None:
        self.engine.runner = self.runner = FakeRunner(hold=True)
        texts = {
            "stdin": "x" * 200_000 + "\U0001f600",
            "args": tuple(f"{number}\U0001f600" for number in range(1000)),
            "env": {f"NAME_{number}": "x" * 100 for number in range(500)},
            "outputs": ("y" * 1000,) * 100,
        }
        before = self.engine.store.held_bytes
        first, second = (self.submit(**texts) for _ in range(2))
        alone = first.held_bytes - len(b"print(1)") - (300 + len("main.py"))
        self.assertGreater(alone, 4 * 200_000 + 1000 * 80 + 500 * 150 + 100_000)
        self.assertEqual(self.engine.store.held_bytes - before, 2 * first.held_bytes)
        hashed = first.hash
        self.engine.cancel(second)
        self.runner.release()
        for job in (first, second):
            await asyncio.wait_for(job.over.wait(), 5)
            manifest = job.manifest
            self.assertEqual(
                (manifest.stdin, manifest.args, manifest.env, manifest.outputs), ("", (), {}, ())
            )
            self.assertEqual((manifest.timeout, manifest.entrypoint), (300, "main.py"))
            self.assertEqual((job.held_bytes, job.hash), (0, hashed))
        self.assertEqual(self.engine.store.held_bytes, before)

    async def test_a_manifest_for_which_there_is_no_room_is_refused(self) -> None:
        self.engine.config = Config(client_held_bytes=1 << 20)
        with self.assertRaises(OverQuota) as caught:
            self.submit(stdin="x" * (1 << 18) + "\U0001f600")
        self.assertEqual(caught.exception.reason, "held_bytes")

    async def test_what_somebody_still_reads_counts_when_it_is_forgotten(self) -> None:
        self.runner.files, self.runner.stdout = {"a": bytes(1 << 20)}, b"printed"
        job = await self.run_one()
        readings = [job.read(lambda: self.engine.store.weigh(job)) for _ in range(2)]
        held = self.engine.store.held_bytes
        self.engine.delete(job)
        self.assertEqual(self.engine.store.held_bytes, held)
        readings[0].close()
        readings[0].close()
        await asyncio.sleep(0)
        self.assertEqual(readings[1].read(0, 4), bytes(4))
        self.assertEqual(job.log.read("stdout").data, b"printed")
        self.assertEqual(self.engine.store.held_by["192.0.2.1"], held)
        del readings[1]  # whoever read it was cut off
        await asyncio.sleep(0)
        self.assertEqual((self.engine.store.held_bytes, len(self.engine.store.held_by)), (0, 0))

    async def test_no_job_starts_while_what_it_makes_could_not_be_held(self) -> None:
        self.engine.runner = self.runner = FakeRunner(hold=True)
        for ending in ("there is room again", "nothing else runs"):
            self.engine.config = Config(held_bytes=200 << 20, slots=1, quotas=False)
            first, second = self.submit(), self.submit()
            self.engine.config = Config(held_bytes=200 << 20, slots=2, quotas=False)
            rest = self.engine.free
            self.engine.receive("other", rest)
            self.engine.sweep()
            self.assertEqual((first.state, second.state), ("running", "queued"))
            if ending == "there is room again":
                self.engine.let_go("other", rest)
                self.engine.sweep()
                self.engine.receive("other", rest)
            else:
                self.engine.cancel(first)
                await first.over.wait()
            self.assertEqual(second.state, "running", ending)
            for job in (first, second):
                self.engine.delete(job)
                await job.over.wait()
            self.engine.let_go("other", rest)

    async def test_inspections_wait_for_each_other(self) -> None:
        inside, most = 0, 0

        async def inspect(archive: int, on_cpu: Callable[[float], None]) -> Inspection:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1
            return Inspection((), None)

        self.runner.inspect = inspect  # type: ignore[method-assign]
        with self.engine.quota.reserve("192.0.2.1") as reservation:
            await asyncio.gather(*(self.engine.inspect(reservation, 0) for _ in range(50)))
        self.assertEqual(most, self.engine.config.slots)

    async def test_an_inspection_is_drawn_whole_unless_it_becomes_a_job(self) -> None:
        for seconds, accepted, drawn in (
            (0.4, False, 0.4),
            (2.0, False, 2.0),
            (0.4, True, 0.0),
            (2.0, True, 1.5),
        ):
            client = f"192.0.2.{seconds}{accepted}"
            self.runner.inspection_seconds = seconds
            with self.engine.quota.reserve(client) as reservation:
                await self.engine.inspect(reservation, os.memfd_create("archive"))
                if accepted:
                    reservation.keep()
                    reservation.end(0.0)
            standing = self.engine.quota.standing(client)
            self.assertEqual(standing.active, 0)
            self.assertEqual(standing.hourly_limit - standing.hourly_left, accepted)
            self.assertAlmostEqual(standing.cpu_limit - standing.cpu_left, drawn)

    async def test_whoever_leaves_during_an_inspection_pays_it_once(self) -> None:
        for heard, drawn in ((1.0, 1.0), (None, 3.0)):  # not known: as long as it took
            client, began = f"192.0.2.{heard}", asyncio.Event()

            async def inspect(
                archive: int,
                on_cpu: Callable[[float], None],
                heard: float | None = heard,
                began: asyncio.Event = began,
            ) -> Inspection:
                if heard is not None:
                    on_cpu(heard)
                began.set()
                await asyncio.Event().wait()
                raise AssertionError("never reached")

            self.runner.inspect = inspect  # type: ignore[method-assign]
            with self.engine.quota.reserve(client) as reservation:
                asking = asyncio.create_task(self.engine.inspect(reservation, 0))
                await began.wait()
                self.clock.forward(3.0)
                asking.cancel()
                await asyncio.wait((asking,))
            standing = self.engine.quota.standing(client)
            refilled = 3.0 / 6 if heard else 0.0
            self.assertAlmostEqual(standing.cpu_limit - standing.cpu_left, drawn - refilled)

    async def test_one_client_may_hold_only_its_part(self) -> None:
        self.runner.files = {"a": bytes(1 << 20)}
        self.engine.config = Config(client_held_bytes=1 << 20)
        await self.run_one()
        with self.assertRaises(OverQuota) as caught:
            self.submit()
        self.assertEqual(caught.exception.reason, "held_bytes")
        self.assertEqual(self.engine.quota.standing("192.0.2.1").active, 0)
        self.assertEqual((await self.run_one(client="192.0.2.2")).state, "completed")


class Charging(EngineCase):
    hold = True
    config = Config(slots=4)

    def used(self) -> float:
        stand = self.engine.quota.standing("192.0.2.1")
        return stand.cpu_limit - stand.cpu_left

    async def test_running_jobs_draw_and_an_empty_bucket_ends_all_of_that_client(self) -> None:
        seconds = 0.0
        jobs = [self.submit(), self.submit()]
        other = self.submit("192.0.2.2")
        for job in (*jobs, other):
            job.set_gauge(lambda: Gauge(seconds))
        seconds = 4.9
        self.engine.draw()
        self.assertAlmostEqual(self.used(), 9.8)
        self.assertFalse(any(job.stop.done() for job in jobs))
        seconds = 5.1
        self.engine.draw()
        await asyncio.gather(*(job.over.wait() for job in jobs))
        self.assertEqual({(job.state, job.reason) for job in jobs}, {("failed", "cpu_quota")})
        self.assertEqual(other.state, "running")
        with self.assertRaises(OverQuota) as caught:
            self.submit()
        self.assertEqual(caught.exception.reason, "cpu_quota")

    async def test_the_end_charges_what_was_really_used(self) -> None:
        job = self.submit()
        job.set_gauge(lambda: Gauge(0.01))
        self.engine.draw()
        self.runner.release()
        await job.over.wait()
        await asyncio.sleep(0)
        self.assertAlmostEqual(self.used(), 0.012345)  # as the FakeRunner's Usage says
        self.assertEqual(self.engine.quota.standing("192.0.2.1").active, 0)

    async def test_our_fault_costs_nothing(self) -> None:
        job = self.submit()
        job.set_gauge(lambda: Gauge(3.0))
        self.engine.draw()
        self.runner.error = SandboxError("mount", 13)
        self.runner.release()
        await job.over.wait()
        await asyncio.sleep(0)
        stand = self.engine.quota.standing("192.0.2.1")
        self.assertEqual((stand.cpu_left, stand.hourly_left, stand.active), (10.0, 20, 0))

    async def test_a_cancelled_job_gives_its_place_back(self) -> None:
        self.engine.config = Config(slots=1)
        jobs = [self.submit(), self.submit()]
        with self.assertRaises(OverQuota):
            self.submit()
        self.engine.cancel(jobs[1])
        self.submit()

    async def test_the_engine_draws_by_itself(self) -> None:
        drawn = asyncio.Event()
        self.engine.draw = drawn.set  # type: ignore[method-assign]
        self.engine.start()
        await asyncio.wait_for(drawn.wait(), 5)


class Ids(EngineCase):
    config = Config(quotas=False)

    async def test_ids_are_128_random_bits_and_no_token_is_an_id(self) -> None:
        jobs = [await self.run_one() for _ in range(50)]
        self.assertEqual(len({job.id for job in jobs} | {job.owner_token for job in jobs}), 100)
        for job in jobs:
            self.assertRegex(job.id, r"^job-[0-9a-f]{32}$")

    async def test_the_hash_covers_manifest_and_files(self) -> None:
        first, again = await self.run_one(), await self.run_one()
        self.assertEqual(first.hash, again.hash)
        with self.engine.quota.reserve("192.0.2.9") as reservation:
            other = self.submitted(MANIFEST, upload(b"print(2) "), reservation)
        self.assertNotEqual(first.hash, other.hash)
