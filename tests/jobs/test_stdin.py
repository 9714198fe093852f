"""What may be sent to a job's stdin, when, and what it counts as, before there is a program."""

from jobs import stdin
from jobs.errors import Rejected
from jobs.job import Job
from sandbox.feed import ROOM
from tests.jobs.test_engine import EngineCase


class Sent(EngineCase):
    hold = True

    def refused(self, job: Job, data: bytes = b"", end: bool = False, at: int | None = None) -> str:
        with self.assertRaises(Rejected) as caught:
            stdin.send(job, data, end, at)
        return caught.exception.reason

    async def test_it_is_taken_whole_or_not_at_all(self) -> None:
        job = self.submit(stdin="12345", stdin_live=True)
        room = ROOM - 5
        self.assertEqual(self.refused(job, b"x" * (room + 1)), "stdin_full")
        self.assertEqual(stdin.send(job, b"x" * room, False, 0), {"taken": room, "waiting": ROOM})
        self.assertEqual(self.refused(job, b"x"), "stdin_full")
        self.assertEqual(stdin.send(job, b"", True, room), {"taken": room, "waiting": ROOM})

    async def test_a_piece_out_of_its_turn_is_refused(self) -> None:
        job = self.submit(stdin_live=True)
        stdin.send(job, b"abc", False, 0)
        for at in (0, 2, 4, -1):
            self.assertEqual(self.refused(job, b"abc", at=at), "stdin_position")
        self.assertEqual(stdin.send(job, b"abc", False, 3)["taken"], 6)

    async def test_after_an_end_it_is_closed(self) -> None:
        jobs = [self.submit(stdin_live=True) for _ in range(3)]
        stdin.send(jobs[0], b"abc", True, None)
        self.engine.cancel(jobs[2])  # in line
        for job, word in ((jobs[0], b"x"), (jobs[2], b"x"), (self.submit(), b"x")):
            self.assertEqual(self.refused(job, word), "stdin_closed")
            self.assertEqual(self.refused(job, end=True), "stdin_closed")

    async def test_what_may_wait_is_held_until_the_end(self) -> None:
        alone, live = self.submit(), self.submit(stdin_live=True)
        self.assertEqual(live.held_bytes - alone.held_bytes, ROOM)
        stdin.send(live, b"x" * ROOM, False, None)
        self.assertEqual(live.held_bytes - alone.held_bytes, ROOM)
        self.runner.release()
        for job in (alone, live):
            await job.over.wait()
        self.assertEqual(live.held_bytes, alone.held_bytes)
        assert live.feed
        self.assertEqual((live.feed.waiting, live.feed.is_open), (0, False))

    async def test_the_hash_tells_of_it_and_not_of_what_is_sent(self) -> None:
        silent, live, other = (self.submit(stdin_live=on) for on in (False, True, True))
        stdin.send(live, b"abc", False, None)
        self.assertNotEqual(live.hash, silent.hash)
        self.assertEqual(live.hash, other.hash)
