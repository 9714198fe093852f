"""The server's API, as coroutines: what is asked, and how often again when a connection breaks.

A submission carries a key of its own, so that the same one sent twice is one job; a log that breaks
off goes on where it was read to. docs/api.md has what is asked and answered.
"""

import json
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import quote, urlencode

from sandrun.errors import ConnectionFailed, Refused, SandrunError, TlsFailed, WaitTimeout
from sandrun.http import Answer, Body, Http, Progress, Request
from sandrun.streams import Network

TRIES = 4
FOLLOWS = 8  # times that a log is asked for in a row and nothing comes: half a minute
LONGEST_PAUSE = 10.0

Json = dict[str, Any]
OnPause = Callable[[float, Refused], None]  # seconds until it is asked again, and why not now


class Api:
    """`patience`: seconds that a request may wait, all in all, where the server is at its limit;
    `on_pause` hears of it every second.
    """

    def __init__(
        self,
        network: Network,
        url: str,
        timeout: float,
        patience: float,
        on_pause: OnPause | None = None,
    ) -> None:
        self.network = network
        self._http = Http(network, url, timeout)
        self._patience = patience
        self._on_pause = on_pause

    @property
    def url(self) -> str:
        return self._http.url

    def close(self) -> None:
        self._http.close()

    async def submit(self, body: Body, key: str, sent: Progress | None) -> Json:
        headers = {"Idempotency-Key": key}
        return _object(await self._ask(Request("POST", "/submit", headers, body, sent)))

    async def frames(
        self, job: str, since: int = 0, until: float | None = None
    ) -> AsyncGenerator[Json, None]:
        """All that happens to the job up to its end, each once, however often the connection
        breaks. The last one is "end" or "gone". Raises WaitTimeout when time.monotonic() has come
        to `until`.
        """
        begun = time.monotonic()
        failures, patience = 0, self._patience
        while True:
            try:
                async with aclosing(self._frames(job, since, until)) as frames:
                    async for frame in frames:
                        failures, since = 0, frame["seq"]
                        yield frame
                        if frame["type"] in ("end", "gone"):
                            return
                raise ConnectionFailed("The server broke off in the middle of the log")
            except ConnectionFailed:
                if until is not None and time.monotonic() >= until:
                    raise WaitTimeout(job, round(until - begun, 3)) from None
                failures += 1
                if failures == FOLLOWS:
                    raise
            except Refused as error:
                if error.retry_after and error.retry_after <= patience:
                    patience -= error.retry_after
                    await self._sit_out(error.retry_after, error)
                    continue
                failures += 1
                if failures == FOLLOWS or not _is_transient(error):
                    raise
            seconds = pause(failures)
            if until is not None:
                seconds = min(seconds, max(until - time.monotonic(), 0))
            await self.network.sleep(seconds)

    async def _frames(
        self, job: str, since: int, until: float | None
    ) -> AsyncGenerator[Json, None]:
        path = f"/logs/{_word(job)}?follow=1&format=ndjson&since={since}"
        rest = b""
        async with aclosing(self._http.listen(Request("GET", path), until)) as pieces:
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield _frame(line)

    async def get(self, path: str) -> Json:
        """The JSON at /, /stats, /environments or /health."""
        return _object(await self._ask(Request("GET", path)))

    async def status(self, job: str, wait: int = 0) -> Json:
        return _object(await self._ask(Request("GET", f"/status/{_word(job)}?wait={wait}")))

    async def outputs(self, job: str) -> Json:
        return _object(await self._ask(Request("GET", f"/outputs/{_word(job)}")))

    async def receipt(self, job: str) -> Json:
        return _object(await self._ask(Request("GET", f"/receipt/{_word(job)}")))

    async def log(self, job: str, stream: str) -> bytes:
        """The bytes that are kept of "stdout" or "stderr"."""
        return (await self._ask(Request("GET", f"/logs/{_word(job)}?stream={stream}"))).body

    async def download(self, url: str, offset: int = 0, size: int | None = None) -> bytes:
        """What is at the `download_url` of an output; of it `size` bytes, from `offset` on."""
        if offset < 0 or (size is not None and size < 0):
            raise SandrunError("A part of an output begins at 0 or later and has 0 bytes or more")
        if size == 0:
            return b""
        headers = {"Accept": "*/*"}
        if offset or size is not None:
            headers["Range"] = f"bytes={offset}-{'' if size is None else offset + size - 1}"
        answer = await self._ask(Request("GET", url, headers))
        if answer.status == 206 or not headers.keys() & {"Range"}:
            return answer.body
        return answer.body[offset : None if size is None else offset + size]

    async def archive(self, job: str) -> bytes:
        """All outputs as tar.gz."""
        path = f"/download/{_word(job)}?format=tar.gz"
        return (await self._ask(Request("GET", path, {"Accept": "*/*"}))).body

    async def cancel(self, job: str, token: str) -> Json:
        path = f"/jobs/{_word(job)}/cancel"
        return _object(await self._ask(Request("POST", path, _bearer(token))))

    async def delete(self, job: str, token: str) -> None:
        await self._ask(Request("DELETE", f"/jobs/{_word(job)}", _bearer(token)))

    async def stdin(self, job: str, token: str, data: bytes, at: int, end: bool) -> Json:
        """Sends more to its stdin. Not tried again: `at` says whether it had come."""
        path = f"/jobs/{_word(job)}/stdin?{urlencode({'at': at, 'end': int(end)})}"
        body = Body("application/octet-stream", [data], len(data))
        return _object(await self._http.ask(Request("POST", path, _bearer(token), body)))

    async def _ask(self, request: Request) -> Answer:
        tries, patience = 0, self._patience
        while True:
            tries += 1
            try:
                return await self._http.ask(request)
            except ConnectionFailed as error:
                if tries == TRIES or isinstance(error, TlsFailed):
                    raise
            except Refused as error:
                if error.retry_after and error.retry_after <= patience:
                    patience -= error.retry_after
                    tries = 0
                    await self._sit_out(error.retry_after, error)
                    continue
                if tries == TRIES or not _is_transient(error):
                    raise
            await self.network.sleep(pause(tries))

    async def _sit_out(self, seconds: float, error: Refused) -> None:
        while seconds > 0:
            if self._on_pause:
                self._on_pause(seconds, error)
            await self.network.sleep(min(seconds, 1))
            seconds -= 1


def _is_transient(error: Refused) -> bool:
    """A proxy whose server restarts, or the same submission that is still on its way."""
    by_a_proxy = error.status in (502, 503, 504) and not error.reason
    return by_a_proxy or error.reason == "in_flight"


def pause(times: int) -> float:
    """Seconds before the next try: longer each time, and not the same for all who were cut off."""
    part = 0.5 + os.urandom(1)[0] / 512  # `random` takes 5 ms to import
    return float(min(0.1 * 2**times, LONGEST_PAUSE) * part)


_FIELDS = {"stdout": {"t"}, "stderr": {"t"}, "gap": {"stream", "bytes"}, "end": {"result"}}


def _frame(line: bytes) -> Json:
    try:
        frame = json.loads(line)
        needed = {"seq", *_FIELDS.get(frame["type"], ())}
        if needed <= frame.keys() and ("t" not in needed or {"data", "base64"} & frame.keys()):
            return dict(frame)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        pass
    raise SandrunError("The server's log cannot be read: is it Sandrun?")


def _object(answer: Answer) -> Json:
    found = answer.json
    if not isinstance(found, dict):
        raise SandrunError("The server's answer is no JSON object: is it Sandrun?")
    return found


def _word(job: str) -> str:
    """A job's id in a path, whatever the caller takes for one."""
    return quote(job, safe="") or "-"


def _bearer(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {quote(token, safe='')}"} if token else {}
