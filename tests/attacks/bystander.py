"""The honest neighbour of every attack, in a process of its own: while an attack lasts it runs
small jobs from another address, one soon after another, and asks for /health all the time. So it
feels what an innocent client would feel, undisturbed by what the test itself does meanwhile.

    python -m tests.attacks.bystander PORT

Lines on stdin: "begin" (a job is on its way when we answer) and "end" (answered when the last job
is over, with a JSON object: jobs, worst_health in seconds, faults). Between "end" and "begin" it is
silent, so that everything that is left then is the attack's.
"""

import asyncio
import hashlib
import json
import secrets
import sys
import time
from contextlib import suppress

from tests.journeys.server import Client

# It reads, computes, writes a file and waits: each of them something that an attack could break.
PAUSE_SECONDS = 0.15  # between two of them: it leaves the machine to the attack
JOB = 'printf %s "$1" | sha256sum | cut -c1-64 | tee out.txt; sleep 0.05'


class Bystander:
    def __init__(self, port: int) -> None:
        self.client = Client(port, "127.99.0.1")
        self.reset()

    def reset(self) -> None:
        self.jobs = 0
        self.worst = 0.0
        self.faults: list[str] = []
        self.is_over = asyncio.Event()
        self.is_begun = asyncio.Event()

    async def work(self) -> None:
        """Jobs until it is over, each looked at closely and forgotten."""
        while not (self.is_over.is_set() and self.jobs):
            word = secrets.token_hex(8)
            answer = await self.client.submit(
                {"run.sh": JOB.encode()}, interpreter="sh", args=[word], outputs=["out.txt"]
            )
            self.is_begun.set()
            if answer.status != 200:
                self.faults.append(f"refused: {answer.status} {answer.body[:300]!r}")
                self.jobs += 1
                continue
            await self.check(answer.json["job_id"], answer.json["owner_token"], word)
            self.jobs += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self.is_over.wait(), PAUSE_SECONDS)

    async def check(self, job: str, token: str, word: str) -> None:
        result = await self.client.finish(job)
        digest = hashlib.sha256(word.encode()).hexdigest() + "\n"
        output = await self.client.ask("GET", f"/download/{job}/out.txt")
        if (
            result["status"] != "completed"
            or result["logs"]["stdout"] != digest
            or output.body != digest.encode()
        ):
            self.faults.append(f"went wrong: {result} {output.body[:100]!r}"[:1000])
        gone = await self.client.ask(
            "DELETE", f"/jobs/{job}", b"", {"Authorization": f"Bearer {token}"}
        )
        if gone.status != 200:
            self.faults.append(f"not deleted: {gone.body[:300]!r}")

    async def watch(self) -> None:
        """How long /health takes at worst."""
        while True:
            started = time.monotonic()
            answer = await self.client.ask("GET", "/health")
            self.worst = max(self.worst, time.monotonic() - started)
            if answer.status != 200:
                self.faults.append(f"/health: {answer.status}")
            if self.is_over.is_set():
                return
            await asyncio.sleep(0.05)

    async def spell(self, lines: asyncio.StreamReader) -> None:
        """From one "begin" to its "end"."""
        self.reset()
        tasks = [asyncio.ensure_future(do()) for do in (self.work, self.watch)]
        begun = asyncio.ensure_future(self.is_begun.wait())
        await asyncio.wait([begun, *tasks], return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        say({})
        await lines.readline()
        self.is_over.set()
        for fault in await asyncio.gather(*tasks, return_exceptions=True):
            if fault is not None:
                self.faults.append(repr(fault))
        say({"jobs": self.jobs, "worst_health": self.worst, "faults": self.faults})


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


async def main() -> None:
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    bystander = Bystander(int(sys.argv[1]))
    while await lines.readline():
        await bystander.spell(lines)


if __name__ == "__main__":
    asyncio.run(main())
