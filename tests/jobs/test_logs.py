"""What is kept of a log, where it lies, and that keeping it is cheap."""

import time
import unittest

from jobs.logs import JobLog


def whole(log: JobLog, stream: str = "stdout", size: int = 7) -> list[tuple[int, bytes]]:
    """All pieces, joined where they touch."""
    pieces: list[tuple[int, bytes]] = []
    offset = 0
    while (piece := log.read(stream, offset, size)).data:
        if pieces and pieces[-1][0] + len(pieces[-1][1]) == piece.offset:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + piece.data)
        else:
            pieces.append((piece.offset, piece.data))
        offset = piece.end
    return pieces


class Log(unittest.TestCase):
    def test_a_short_log_is_kept_whole(self) -> None:
        log = JobLog(100)
        log.append("stdout", memoryview(b"hello "))
        log.append("stderr", memoryview(b"oops"))
        log.append("stdout", memoryview(b"world"))
        self.assertEqual(whole(log), [(0, b"hello world")])
        self.assertEqual(whole(log, "stderr"), [(0, b"oops")])
        self.assertFalse(log.truncated)

    def test_exactly_the_cap_is_kept_whole(self) -> None:
        for cap in (1, 2, 9, 10):
            log = JobLog(cap)
            log.append("stdout", memoryview(bytes(range(cap))))
            self.assertEqual(whole(log), [(0, bytes(range(cap)))])
            self.assertFalse(log.truncated)

    def test_over_the_cap_head_and_tail_are_kept_at_their_offsets(self) -> None:
        text = bytes(n % 251 for n in range(1000))
        for cap in (2, 3, 10, 64, 999):
            for step in (1, 3, 10, 400, 1000):
                with self.subTest(cap=cap, step=step):
                    log = JobLog(cap)
                    for start in range(0, 1000, step):
                        log.append("stdout", memoryview(text[start : start + step]))
                    head, tail = cap - cap // 2, cap // 2
                    self.assertEqual(
                        whole(log), [(0, text[:head]), (1000 - tail, text[1000 - tail :])]
                    )
                    self.assertEqual(log.dropped("stdout"), 1000 - cap)
                    self.assertEqual((log.total("stdout"), log.kept_bytes), (1000, cap))
                    self.assertTrue(log.truncated)

    def test_each_stream_has_its_own_cap(self) -> None:
        log = JobLog(10)
        log.append("stdout", memoryview(bytes(100)))
        log.append("stderr", memoryview(b"kept"))
        self.assertEqual(log.dropped("stderr"), 0)

    def test_reading_behind_the_end_finds_nothing(self) -> None:
        log = JobLog(10)
        log.append("stdout", memoryview(b"abc"))
        self.assertEqual(log.read("stdout", 3).data, b"")
        self.assertEqual(log.read("stdout", 10**18).data, b"")

    def test_the_view_may_change_afterwards(self) -> None:
        log, buffer = JobLog(10), bytearray(b"abcdefghijkl")
        log.append("stdout", memoryview(buffer))
        buffer[:] = bytes(12)
        self.assertEqual(whole(log), [(0, b"abcde"), (7, b"hijkl")])

    def test_a_flood_costs_little(self) -> None:
        log, megabyte = JobLog(10 << 20), memoryview(bytes(1 << 20))
        began = time.process_time()
        for _ in range(1000):
            log.append("stdout", megabyte)
        for _ in range(100_000):
            log.append("stdout", megabyte[:1])
        self.assertLess(time.process_time() - began, 2.0)
        self.assertEqual(log.kept_bytes, 10 << 20)
