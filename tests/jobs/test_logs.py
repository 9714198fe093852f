"""What is kept of a log, where it lies, and that keeping it is cheap."""

import time
import unittest

from jobs.logs import RUNS_A_TICK, SLOWEST_TICK_SECONDS, JobLog, Part


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


def parts(log: JobLog, position: int = 0, size: int = 5) -> list[Part]:
    """All that follows `position`, in the order of time."""
    found = []
    while (part := log.part(position, size)) is not None:
        found.append(part)
        position = part.end
    return found


def bytes_of(found: list[Part], stream: str) -> bytes:
    return b"".join(part.data for part in found if part.stream == stream)


class Order(unittest.TestCase):
    """Both streams in the order of time, by position."""

    def test_what_came_first_is_told_first_with_its_time(self) -> None:
        log = JobLog(100)
        for milliseconds, stream, data in (
            (0, "stderr", b"a"),
            (7, "stdout", b"bc"),
            (9, "stderr", b"d"),
        ):
            log.append(stream, memoryview(data))
            self.assertTrue(log.settle(milliseconds))
        self.assertEqual(
            parts(log),
            [
                Part(0, "stderr", 0, b"a"),
                Part(1, "stdout", 7, b"bc"),
                Part(3, "stderr", 9, b"d"),
            ],
        )

    def test_what_is_not_settled_has_no_position(self) -> None:
        log = JobLog(100)
        log.append("stdout", memoryview(b"abc"))
        self.assertEqual((log.end, parts(log)), (0, []))
        self.assertTrue(log.settle(1))
        self.assertFalse(log.settle(2))
        self.assertEqual(log.end, 3)

    def test_from_every_position_follows_what_followed_it_for_everybody(self) -> None:
        log, written = JobLog(10_000), []
        for number in range(200):
            stream = "stdout" if number % 3 else "stderr"
            data = f"{number} ".encode()
            written.append((stream, data))
            log.append(stream, memoryview(data))
            log.settle(number * 5)
        everything = b"".join(data for _, data in written)
        self.assertEqual(b"".join(part.data for part in parts(log)), everything)
        for position in range(0, len(everything) + 1, 7):
            rest = b"".join(part.data for part in parts(log, position, 3))
            self.assertEqual(rest, everything[position:])
        for stream in ("stdout", "stderr"):
            alone = b"".join(data for name, data in written if name == stream)
            self.assertEqual(bytes_of(parts(log), stream), alone)

    def test_what_was_not_kept_is_a_gap_of_its_size(self) -> None:
        log = JobLog(10)
        log.append("stdout", memoryview(bytes(range(20))))
        log.settle(0)
        log.append("stderr", memoryview(b"ok"))
        log.settle(1)
        log.append("stdout", memoryview(bytes(range(20, 40))))
        log.settle(2)
        found = parts(log, size=100)
        self.assertEqual(bytes_of(found, "stdout"), bytes(range(5)) + bytes(range(35, 40)))
        self.assertEqual(bytes_of(found, "stderr"), b"ok")
        self.assertEqual(sum(part.lost for part in found), log.dropped("stdout"))
        for part, following in zip(found, found[1:], strict=False):
            self.assertEqual(part.end, following.position)
        self.assertEqual(found[-1].end, log.end)

    def test_a_reader_of_a_flood_gets_every_byte_or_hears_that_it_is_lost(self) -> None:
        log, position, heard = JobLog(64), 0, 0
        for number in range(300):
            log.append(("stdout", "stderr")[number % 2], memoryview(bytes(number % 23)))
            log.settle(number)
            if number % 7 == 0 and (part := log.part(position, 9)) is not None:
                heard += part.lost + len(part.data)
                position = part.end
        heard += sum(part.lost + len(part.data) for part in parts(log, position))
        self.assertEqual(heard, sum(number % 23 for number in range(300)))

    def test_ticks_grow_so_that_the_runs_stay_few(self) -> None:
        log, seconds, ticks = JobLog(1 << 20), 0.0, 0
        while seconds < 3600:
            log.append("stdout", memoryview(b"x"))
            log.append("stderr", memoryview(b"y"))
            log.settle(round(seconds * 1000))
            seconds += log.tick_seconds
            ticks += 1
        self.assertLess(ticks, 10 * RUNS_A_TICK)
        self.assertLessEqual(log.tick_seconds, SLOWEST_TICK_SECONDS)
        self.assertLess(log.kept_bytes - 2 * ticks, 1 << 20)
