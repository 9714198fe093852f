"""Who is served next. `fair_order` is slow and obvious; the line must agree with it."""

import random
import unittest
from typing import NamedTuple, cast

from jobs.job import Job
from jobs.line import Line


class Waiting(NamedTuple):
    """What a line knows of a job."""

    id: str
    client: str


def job(client: str, number: int) -> Job:
    return cast(Job, Waiting(f"{client}{number}", client))


def fair_order(jobs: list[Job]) -> list[Job]:
    """Every client's first, then every client's second, ...; within a turn as they came."""
    turns: dict[str, int] = {}
    order = []
    for number, one in enumerate(jobs):
        turn = turns[one.client] = turns.get(one.client, -1) + 1
        order.append((turn, number, one))
    return [one for _, _, one in sorted(order, key=lambda item: item[:2])]


class Turns(unittest.TestCase):
    def test_clients_are_served_in_turn_whatever_the_order_of_arrival(self) -> None:
        chance = random.Random(7)
        for _ in range(100):
            jobs = [job(chance.choice("abcde"), number) for number in range(40)]
            line = Line()
            for one in jobs:
                line.add(one)
            expected = fair_order(jobs)
            self.assertEqual(list(line), expected)
            self.assertEqual([line.position(one) for one in expected], list(range(1, 41)))
            self.assertEqual([line.take_first() for _ in jobs], expected)

    def test_positions_are_true_while_jobs_come_and_go(self) -> None:
        chance = random.Random(8)
        line, inside, number = Line(), [], 0
        for _ in range(2000):
            if inside and chance.random() < 0.5:
                if chance.random() < 0.3:
                    gone = inside.pop(chance.randrange(len(inside)))
                    line.leave(gone)
                else:
                    gone = line.take_first()
                    inside.remove(gone)
                self.assertEqual(line.position(gone), 0)
            else:
                number += 1
                inside.append(job(chance.choice("abc"), number))
                line.add(inside[-1])
            self.assertEqual(len(line), len(inside))
            for place, one in enumerate(line, 1):
                self.assertEqual(line.position(one), place)

    def test_a_newcomer_waits_for_one_job_of_each_client(self) -> None:
        line = Line()
        for number in range(500):
            line.add(job("flood", number))
        for _ in range(100):
            line.take_first()
        newcomer = job("new", 0)
        line.add(newcomer)
        self.assertLessEqual(line.position(newcomer), 2)

    def test_who_was_served_does_not_come_before_who_waits(self) -> None:
        line = Line()
        line.add(job("a", 1))
        line.add(job("b", 1))
        line.take_first()
        line.add(job("a", 2))
        self.assertEqual([one.client for one in line], ["b", "a"])

    def test_who_leaves_is_owed_the_turn(self) -> None:
        line = Line()
        jobs = [job("a", number) for number in range(9)]
        for one in (*jobs, job("b", 1), job("b", 2)):
            line.add(one)
        for one in jobs[1:]:
            line.leave(one)
        line.add(job("a", 10))
        self.assertEqual([one.id for one in line], ["a0", "b1", "b2", "a10"])

    def test_leaving_and_coming_again_gains_nothing(self) -> None:
        line, again = Line(), job("a", 2)
        for one in (job("a", 1), job("b", 1), job("b", 2)):
            line.add(one)
        line.take_first()
        line.add(again)
        line.leave(again)
        line.add(job("a", 3))
        self.assertEqual([one.id for one in line], ["b1", "b2", "a3"])

    def test_nothing_is_remembered_of_clients_that_are_gone(self) -> None:
        line = Line()
        for number in range(5000):
            line.add(job(f"client{number}", 1))
            line.add(job("always", number))
            line.take_first()
            line.take_first()
        self.assertLess(len(line._last_turn), 5)
