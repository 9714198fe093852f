"""What one client may have, and when it has it again."""

import unittest
from concurrent.futures import ThreadPoolExecutor

from jobs import quota
from jobs.conf import Config
from jobs.errors import Full, OverQuota
from jobs.quota import Quota, Reservation


class QuotaCase(unittest.TestCase):
    config = Config()

    def setUp(self) -> None:
        self.now = 5000.0
        self.quota = Quota(self.config, lambda: self.now)

    def reserve(self, client: str = "a") -> Reservation:
        reservation = self.quota.reserve(client)
        reservation.keep()
        return reservation

    def refused(self, client: str = "a") -> OverQuota:
        with self.assertRaises(OverQuota) as caught:
            self.quota.reserve(client)
        return caught.exception


class Limits(QuotaCase):
    def test_two_at_once_and_another_when_one_is_over(self) -> None:
        first, _ = self.reserve(), self.reserve()
        refusal = self.refused()
        self.assertEqual(refusal.sentence, "Max concurrent jobs reached (2)")
        self.assertEqual(refusal.reason, "concurrent_jobs")
        self.reserve("b")
        first.end(0.0)
        first.end(0.0)  # a second end frees no second place
        self.reserve()
        self.refused()

    def test_twenty_in_any_hour(self) -> None:
        for _ in range(20):
            self.reserve().end(0.0)
            self.now += 60
        refusal = self.refused()
        self.assertEqual(refusal.sentence, "Max jobs per hour reached (20)")
        self.assertEqual(refusal.retry_after, 3600 - 20 * 60)
        self.now += refusal.retry_after
        self.reserve().end(0.0)
        self.refused()  # the next one only when the second of the twenty is an hour old

    def test_ten_cpu_seconds_a_minute_and_debts_are_remembered(self) -> None:
        self.reserve().end(12.0)
        refusal = self.refused()
        self.assertEqual(refusal.sentence, "CPU quota exhausted, wait 18 seconds")
        self.assertEqual((refusal.reason, refusal.retry_after), ("cpu_quota", 18))
        self.now += 17.9
        self.assertEqual(self.refused().retry_after, 1)
        self.now += 0.1
        self.reserve().end(0.0)
        self.now += 1000
        self.assertEqual(self.quota.standing("a").cpu_left, 10.0)  # never more than the bucket

    def test_drawing_tells_when_nothing_is_left(self) -> None:
        first, second = self.reserve(), self.reserve()
        self.assertTrue(first.draw(4.0))
        self.assertTrue(first.draw(5.0))
        self.assertTrue(second.draw(4.9))
        self.assertFalse(second.draw(5.1))
        self.now += 6
        self.assertTrue(first.draw(5.0))  # one second has come back meanwhile
        first.end(4.0)  # a meter that goes backwards gives nothing back
        self.assertAlmostEqual(self.quota.standing("a").cpu_left, 0.9)

    def test_what_is_refused_costs_nothing(self) -> None:
        with self.assertRaises(RuntimeError), self.quota.reserve("a") as reservation:
            reservation.draw(1.0)
            raise RuntimeError("the upload was no good")
        stand = self.quota.standing("a")
        self.assertEqual((stand.active, stand.hourly_left, stand.cpu_left), (0, 20, 10.0))

    def test_what_was_kept_is_not_given_back(self) -> None:
        with self.quota.reserve("a") as reservation:
            reservation.keep()
        self.assertEqual(self.quota.standing("a").active, 1)

    def test_nothing_is_taken_for_a_job_that_was_given_back_and_is_not_over_yet(self) -> None:
        with self.quota.reserve("a") as reservation:
            reservation.keep()
        reservation.draw(1.0)
        reservation.give_back()
        self.assertTrue(reservation.draw(3.0))  # its result is still being signed
        reservation.end(3.0)
        stand = self.quota.standing("a")
        self.assertEqual((stand.active, stand.cpu_left), (0, 10.0))

    def test_fifty_at_the_same_time_are_two(self) -> None:
        def ask(_: int) -> bool:
            try:
                self.reserve()
            except OverQuota:
                return False
            return True

        with ThreadPoolExecutor(16) as pool:
            self.assertEqual(sum(pool.map(ask, range(50))), 2)


class Standings(QuotaCase):
    def test_a_standing_says_what_is_left_and_when_more_comes(self) -> None:
        self.reserve().draw(4.0)
        stand = self.quota.standing("a")
        self.assertEqual((stand.cpu_left, stand.active, stand.hourly_left), (6.0, 1, 19))
        self.assertAlmostEqual(stand.cpu_full_in, 24.0)
        self.assertEqual(stand.hourly_next_in, 3600.0)
        self.assertIsNone(stand.refusal)
        self.reserve()
        refusal = self.quota.standing("a").refusal
        assert refusal
        self.assertEqual(refusal.reason, "concurrent_jobs")

    def test_asking_leaves_no_trace(self) -> None:
        self.quota.standing("a")
        self.assertEqual(len(self.quota), 0)


class Forgetting(QuotaCase):
    def test_a_client_is_forgotten_when_nothing_is_left_to_know(self) -> None:
        self.reserve("a").end(1.0)
        self.reserve("b")
        for seconds, known in ((3599, 2), (31, 1)):
            self.now += seconds
            self.quota.sweep()
            self.assertEqual(len(self.quota), known)

    def test_clients_are_bounded_and_known_ones_go_on(self) -> None:
        most, quota.CLIENTS = quota.CLIENTS, 3
        self.addCleanup(setattr, quota, "CLIENTS", most)
        for client in "abc":
            self.reserve(client)
        with self.assertRaises(Full):
            self.quota.reserve("d")
        self.reserve("a")


class Off(QuotaCase):
    config = Config(quotas=False)

    def test_without_quotas_nobody_is_refused_and_little_is_known(self) -> None:
        for _ in range(100):
            self.reserve().draw(100.0)
        stand = self.quota.standing("a")
        self.assertEqual((stand.active, stand.hourly_left, stand.refusal), (100, 20, None))
        self.assertEqual(stand.cpu_left, stand.cpu_limit)
