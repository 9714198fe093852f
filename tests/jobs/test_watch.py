"""What a watcher hears, whenever it comes and however slowly it listens."""

import asyncio
import base64
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from jobs.api import live
from jobs.conf import Config
from jobs.engine import Engine
from jobs.job import Job
from jobs.logs import Part
from jobs.watch import PIECE_BYTES, News, Watch
from sandbox.model import Glance
from tests.jobs.test_engine import EngineCase


async def heard(engine: Engine, job: Job, position: int = 0, **options: Any) -> list[News]:
    """Everything, up to the end."""
    async with asyncio.timeout(10):
        return [news async for news in Watch(engine, job, position, **options).news()]


def printed(all_news: list[News], stream: str = "stdout") -> bytes:
    parts = [news.part for news in all_news if news.part]
    return b"".join(part.data for part in parts if part.stream == stream)


class Watching(EngineCase):
    hold = True
    config = Config(slots=1, quotas=False, log_bytes=200_000)

    def say(self, job: Job, text: str | bytes, stream: str = "stdout") -> None:
        data = text.encode() if isinstance(text, str) else text
        job.take_output(stream, memoryview(data))

    async def running(self) -> Job:
        job = self.submit()
        await asyncio.sleep(0)
        return job

    async def test_files_are_asked_for_once_a_second_and_only_for_whoever_wants_them(self) -> None:
        job = await self.running()
        asked: list[float] = []
        loop = asyncio.get_running_loop()

        def look(on_glance: Callable[[Glance], None]) -> None:
            asked.append(loop.time())
            on_glance(Glance((("a", len(asked)),)))

        job.set_look(look)
        without = asyncio.create_task(heard(self.engine, job))
        await asyncio.sleep(1.2)
        self.assertEqual(asked, [])
        both = [asyncio.create_task(heard(self.engine, job, files=True)) for _ in range(2)]
        await asyncio.sleep(2.6)
        self.assertEqual(len(asked), 3)
        self.assertTrue(all(b - a >= 1 for a, b in pairwise(asked)), asked)
        self.runner.release()
        for all_news in await asyncio.gather(*both):
            self.assertEqual([news.kind for news in all_news].count("files"), 3)
        self.assertNotIn("files", [news.kind for news in await without])
        self.assertEqual((job.glance, len(asked)), (Glance(), 3))

    async def test_each_word_is_heard_soon_after_it_was_said(self) -> None:
        job = await self.running()
        news = Watch(self.engine, job).news()
        self.assertEqual((await anext(news)).kind, "status")
        loop = asyncio.get_running_loop()
        for word in ("one", "two", "three"):
            following = asyncio.ensure_future(anext(news))
            await asyncio.sleep(0.03)
            self.assertFalse(following.done())
            said = loop.time()
            self.say(job, word)
            part = (await following).part
            assert part is not None
            self.assertEqual((part.stream, part.data), ("stdout", word.encode()))
            self.assertLess(loop.time() - said, 0.05)
        await news.aclose()

    async def test_whoever_comes_late_hears_everything_once(self) -> None:
        job = await self.running()
        first = asyncio.create_task(heard(self.engine, job))
        for number in range(50):
            self.say(job, f"{number}\n", ("stdout", "stderr")[number % 2])
            await asyncio.sleep(0.001)
        middle = asyncio.create_task(heard(self.engine, job))
        await asyncio.sleep(0)
        self.runner.release()
        late = await heard(self.engine, (await self.over(job)))
        for all_news in (await first, await middle, late):
            self.assertEqual(all_news[-1].kind, "end")
            for stream in ("stdout", "stderr"):
                self.assertEqual(printed(all_news, stream), job.log.read(stream).data)

    async def over(self, job: Job) -> Job:
        await asyncio.wait_for(job.over.wait(), 5)
        return job

    async def test_from_the_position_of_any_news_the_rest_is_heard(self) -> None:
        job = await self.running()
        watching = asyncio.create_task(heard(self.engine, job))
        for number in range(40):
            self.say(job, f"{number} " * 400, ("stdout", "stderr")[number % 2])
            await asyncio.sleep(0.004)
        self.runner.release()
        all_news = await watching
        for at, news in enumerate(all_news):
            rest = await heard(self.engine, job, news.position)
            for stream in ("stdout", "stderr"):
                self.assertEqual(
                    printed(all_news[: at + 1] + rest, stream), printed(all_news, stream)
                )

    async def test_a_slow_listener_holds_nothing_and_hears_of_the_gap(self) -> None:
        job = await self.running()
        news = Watch(self.engine, job).news()
        await anext(news)
        self.say(job, b"x" * 1_000_000)
        await asyncio.sleep(0.02)
        first = (await anext(news)).part
        assert first is not None
        self.assertEqual(len(first.data), PIECE_BYTES)
        self.runner.release()
        await self.over(job)
        rest = [one async for one in news]
        parts = [first, *(one.part for one in rest if one.part)]
        self.assertEqual(sum(part.lost for part in parts), job.log.dropped("stdout"))
        self.assertEqual(sum(part.lost + len(part.data) for part in parts), 1_000_000)

    async def test_a_letter_is_never_cut_for_whoever_reads_letters(self) -> None:
        job = await self.running()
        watching = asyncio.create_task(heard(self.engine, job))
        letters = "a\u20ac\U0001f600\u00e9" * 9000
        raw = letters.encode()
        for start in range(0, len(raw), 997):
            self.say(job, raw[start : start + 997])
            await asyncio.sleep(0)
        self.runner.release()
        all_news = await watching
        frames = [
            json.loads(live.frame(self.engine, job, news).json) for news in all_news if news.part
        ]
        self.assertEqual("".join(frame["data"] for frame in frames), letters)

    async def test_what_is_no_text_goes_out_as_its_bytes(self) -> None:
        job = await self.running()
        for data in (b"\xff\xfe", bytes(1000), b"\x1b" * 100, b"ends in half a letter \xe2\x82"):
            part = Part(0, "stdout", 0, data)
            news = News("log", part.end, part)
            frame = json.loads(live.frame(self.engine, job, news).json)
            self.assertEqual(base64.b64decode(frame["base64"]), data)

    async def test_half_a_letter_is_told_at_once_to_whoever_reads_bytes(self) -> None:
        job = await self.running()
        news = Watch(self.engine, job, whole_letters=False).news()
        await anext(news)
        self.say(job, b"\xe9")
        part = (await asyncio.wait_for(anext(news), 0.2)).part
        assert part is not None
        self.assertEqual(part.data, b"\xe9")
        await news.aclose()

    async def test_the_place_in_line_is_told_when_it_changes(self) -> None:
        await self.running()
        second, third = self.submit("192.0.2.2"), self.submit("192.0.2.3")
        news = Watch(self.engine, third).news()
        frame = json.loads(live.frame(self.engine, third, await anext(news)).json)
        self.assertEqual((frame["status"], frame["queue_position"]), ("queued", 2))
        self.engine.cancel(second)
        frame = json.loads(live.frame(self.engine, third, await anext(news)).json)
        self.assertEqual((frame["status"], frame["queue_position"]), ("queued", 1))
        self.runner.release()
        kinds = [one.kind async for one in news]
        self.assertEqual(kinds[-1], "end")

    async def test_a_job_that_is_deleted_is_gone_for_its_watchers_at_once(self) -> None:
        job = await self.running()
        self.say(job, "secret")
        watching = asyncio.create_task(heard(self.engine, job))
        await asyncio.sleep(0.02)
        self.engine.delete(job)
        self.assertEqual((await watching)[-1].kind, "gone")

    async def test_a_watcher_that_reads_slowly_holds_no_log_of_a_deleted_job(self) -> None:
        job = await self.running()
        self.say(job, b"x" * 200_000)
        self.runner.release()
        await self.over(job)
        news = Watch(self.engine, job).news()
        await anext(news)
        self.engine.delete(job)
        self.assertEqual(self.engine.store.held_bytes, 0)
        self.assertEqual([one.kind async for one in news], ["gone"])

    async def test_whoever_has_left_is_counted_no_more(self) -> None:
        job = await self.running()
        all_news = [Watch(self.engine, job).news() for _ in range(10)]
        for news in all_news:
            await anext(news)
        self.assertEqual(job.bell.listeners, 10)
        for news in all_news:
            await news.aclose()
        self.assertEqual(job.bell.listeners, 0)
