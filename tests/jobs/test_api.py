"""The HTTP reference, endpoint by endpoint, over a FakeRunner."""

import asyncio
import gc
import io
import json
import os
import unittest
from typing import Any
from urllib.parse import unquote

from django.core.cache import caches
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import AsyncClient, AsyncRequestFactory

from jobs.api.site import SCOPE_KEY, Interpreter, Site
from jobs.api.views import _wait_seconds, disposition
from jobs.conf import Config
from jobs.engine import Engine
from jobs.errors import Full
from sandbox import runtimes
from sandbox.errors import BundleRefused, SandboxError
from sandbox.model import Inspection, Member
from tests.fakes import FakeRunner, ManualClock
from tests.jobs.wired import held

HOSTS = ("localhost", "127.0.0.1", "[::1]")


class Client(AsyncClient):
    """Django's client, to a Site, with a Host that can be another one."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.host: str | None = "localhost:8443"

    def _base_scope(self, **request: Any) -> Any:
        scope = super()._base_scope(**request)
        headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
        if self.host is not None:
            headers.append((b"host", self.host.encode("latin1")))
        return {**scope, "headers": headers, SCOPE_KEY: self.site}


class ApiCase(unittest.IsolatedAsyncioTestCase):
    hold = False
    config = Config()

    async def asyncSetUp(self) -> None:
        self.clock = ManualClock()
        self.runner = FakeRunner(hold=self.hold)
        self.engine = Engine(self.runner, self.config, self.clock)
        self.addAsyncCleanup(self.engine.close)
        known = {name: Interpreter(one, f"{name} 1.0") for name, one in runtimes.load().items()}
        self.client = Client(Site(self.config, self.engine, known, HOSTS))
        caches["ratelimit"].clear()

    def file(self, name: str = "main.py", content: bytes = b"print(1)") -> io.BytesIO:
        return SimpleUploadedFile(name, content)  # type: ignore[no-any-return]

    async def submit(self, manifest: Any = None, status: int = 200, **fields: Any) -> Any:
        data: dict[str, Any] = fields or {"files": self.file()}
        if manifest is not None:
            data["manifest"] = manifest if isinstance(manifest, str) else json.dumps(manifest)
        response = await self.client.post("/submit", data)
        self.assertEqual(response.status_code, status, response.content)
        return response.json()

    async def run_one(self, manifest: Any = None) -> str:
        job_id = str((await self.submit(manifest))["job_id"])
        await asyncio.wait_for(self.engine.store.find(job_id).over.wait(), 5)
        return job_id

    async def get(self, path: str, status: int = 200, **headers: str) -> Any:
        response = await self.client.get(path, headers=headers)
        self.assertEqual(response.status_code, status, path)
        return response.json()


class Server(ApiCase):
    async def test_root_tells_programs_what_runs_here(self) -> None:
        body = await self.get("/", accept="*/*")
        self.assertEqual(
            (body["service"], body["status"], body["quotas"]), ("sandrun", "running", "none")
        )
        self.assertTrue({"description", "privacy", "limits"} <= body.keys())
        self.assertEqual(
            body["interpreters"]["python3"],
            {
                "version": "python3 1.0",
                "extensions": [".py"],
                "aliases": ["python"],
                "entrypoint": "main.py",
            },
        )
        self.assertEqual(body["limits_detail"]["memory_mb"], 512)

    async def test_root_is_a_page_for_browsers(self) -> None:
        response = await self.client.get("/", headers={"accept": "text/html,*/*;q=0.8"})
        self.assertEqual(response["Content-Type"], "text/html; charset=utf-8")
        self.assertEqual(response["Vary"], "Accept")
        self.assertNotIn("unsafe", response["Content-Security-Policy"])
        text = response.content.decode()
        self.assertNotRegex(text, r"<script(?![^>]*src=)|<style|\son\w+=|style=|https?://")
        for path in ("/static/frontend/page.js", "/static/frontend/style.css"):
            self.assertIn(path, text)
            self.assertEqual((await self.client.get(path)).status_code, 200)

    async def test_a_page_that_is_not_wanted(self) -> None:
        for accept, kind in (
            ("text/html;q=0", "application/json"),
            ("text/html; Q=0.000, */*", "application/json"),
            ("application/json;q=0, text/html;level=1;q=0.1", "text/html; charset=utf-8"),
        ):
            response = await self.client.get("/", headers={"accept": accept})
            self.assertEqual(response["Content-Type"], kind, accept)

    async def test_static_files_are_a_closed_list(self) -> None:
        for name in ("", "../views.py", "frontend/../../views.py", "/etc/passwd", "frontend", "x"):
            response = await self.client.get(f"/static/{name}")
            self.assertEqual(response.status_code, 404, name)

    async def test_health_tells_the_walls(self) -> None:
        body = await self.get("/health")
        self.assertEqual(
            body,
            {
                "status": "healthy",
                "worker_id": None,
                "sandbox": {"cgroup": {"memory": "fake"}},
                "degraded": [],
            },
        )
        self.runner.alive = False
        self.assertEqual((await self.get("/health", 503))["status"], "unhealthy")


class Submitting(ApiCase):
    async def test_answer(self) -> None:
        response = await self.client.post("/submit", {"files": self.file(), "manifest": "{}"})
        body = response.json()
        self.assertEqual((response.status_code, body["status"]), (200, "queued"))
        self.assertEqual(response["Location"], f"/status/{body['job_id']}")
        self.assertNotEqual(body["owner_token"], body["job_id"])
        job = self.engine.store.find(body["job_id"])
        self.assertEqual(job.manifest.entrypoint, "main.py")

    async def test_manifest_comes_from_the_form_or_from_job_json(self) -> None:
        files = [self.file(), self.file("job.json", b'{"timeout": 7}')]
        body = await self.submit(files=files)
        self.assertEqual(self.engine.store.find(body["job_id"]).manifest.timeout, 7)
        body = await self.submit({"timeout": 8}, files=[self.file(), self.file("job.json", b"{")])
        self.assertEqual(self.engine.store.find(body["job_id"]).manifest.timeout, 8)
        body = await self.submit(files=[self.file(), self.file("job.json", b"{")], status=400)
        self.assertEqual(body["reason"], "invalid_manifest")

    async def test_an_archive_is_inspected(self) -> None:
        members = (Member("run.sh", 1, 0, 0o755, "00"), Member("x", 1, 0, 0o644, "00"))
        self.runner.inspection = Inspection(members, b'{"args": ["a"]}')
        body = await self.submit(files=self.file("job.tar.gz", b"\x1f\x8bwhatever"))
        manifest = self.engine.store.find(body["job_id"]).manifest
        self.assertEqual((manifest.entrypoint, manifest.args), ("run.sh", ("a",)))
        self.assertEqual(self.runner.inspected, [b"\x1f\x8bwhatever"])

    async def test_archives_that_cannot_be_taken(self) -> None:
        archive = {"files": ("job.tar.gz", b"\x1f\x8b")}
        for error, status, reason in (
            (BundleRefused("the archive holds a link"), 400, "invalid_upload"),
            (SandboxError("mount", 13), 503, "sandbox_error"),
        ):
            self.runner.inspection = error
            body = await self.submit(files=self.file(*archive["files"]), status=status)
            self.assertEqual(body["reason"], reason)
        body = await self.submit(files=self.file("job.zip", b"PK\3\4"), status=415)
        self.assertEqual(body["error"], "zip uploads come later; send a tar.gz")

    async def test_errors_have_the_old_words(self) -> None:
        self.assertEqual((await self.submit(x="y", status=400))["error"], "No files uploaded")
        files = [self.file("a.py"), self.file("b.py")]
        self.assertEqual(
            (await self.submit(files=files, status=400))["error"], "No entrypoint specified"
        )

    async def test_a_bad_manifest_is_found_before_the_archive_is_inspected(self) -> None:
        body = await self.submit("{", files=self.file("job.tar.gz", b"\x1f\x8b"), status=400)
        self.assertEqual(body["reason"], "invalid_manifest")
        self.assertEqual(self.runner.inspected, [])

    async def test_a_hint_for_a_mistyped_entrypoint(self) -> None:
        body = await self.submit({"entrypoint": "mian.py"}, status=400)
        self.assertEqual(body["error"], "entrypoint 'mian.py' is not in the upload")
        self.assertEqual(body["details"], "Did you mean 'main.py'?")

    async def test_warnings_are_told_at_once_and_later(self) -> None:
        body = await self.submit({"requirements": "numpy"})
        self.assertEqual(len(body["warnings"]), 1)
        status = await self.get(f"/status/{body['job_id']}")
        self.assertEqual(status["warnings"], body["warnings"])

    async def test_other_kinds_of_body(self) -> None:
        for kind in ("text/plain", "application/json", "application/x-www-form-urlencoded"):
            response = await self.client.post("/submit", "{}", content_type=kind)
            self.assertEqual(response.status_code, 415)

    async def test_a_body_that_is_compressed(self) -> None:
        for encoding, status in (("gzip", 415), ("br, identity", 415), ("Identity", 200)):
            response = await self.client.post(
                "/submit", {"files": self.file()}, headers={"content-encoding": encoding}
            )
            self.assertEqual(response.status_code, status)
            if status == 415:
                self.assertIn("Content-Encoding", response.json()["error"])

    async def test_hostile_file_names(self) -> None:
        for name in ('filename="../x"', 'filename="/x"', 'filename="a\tb"', 'filename=".."'):
            body = (
                f"--b\r\nContent-Disposition: form-data; name=files; {name}\r\n\r\nx\r\n--b--\r\n"
            )
            response = await self.client.post(
                "/submit", body.encode(), content_type="multipart/form-data; boundary=b"
            )
            self.assertEqual(response.status_code, 400, name)
        self.assertEqual(len(self.engine.store), 0)


class Memory(ApiCase):
    """What an upload holds is given back at once, not when the garbage is collected."""

    hold = True

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.before = held(os.getpid())

    async def refuse(self, status: int, *files: io.BytesIO, manifest: Any = None) -> None:
        await self.submit(manifest, status, files=list(files))
        self.assertEqual(held(os.getpid()), self.before)

    async def test_refused_loose_files(self) -> None:
        await self.refuse(400, self.file("a.py"), self.file("b.py"))
        await self.refuse(400, self.file(), self.file("job.json", b"{"))
        await self.refuse(400, self.file(), self.file("a\\b"))
        await self.refuse(400, self.file(), manifest={"entrypoint": "x"})
        await self.refuse(400, self.file(), manifest="{")

    async def test_refused_archives(self) -> None:
        for error, status in ((BundleRefused("damaged"), 400), (SandboxError("mount", 13), 503)):
            self.runner.inspection = error
            await self.refuse(status, self.file("job.tar.gz", b"\x1f\x8b"))

    async def test_refused_by_the_engine(self) -> None:
        self.runner.alive = False
        await self.refuse(503, self.file())
        self.engine.admit = lambda upload_bytes: None  # type: ignore[method-assign]

        def submit(*args: object) -> None:
            raise Full("The queue is full", 10)

        self.engine.submit = submit  # type: ignore[assignment, method-assign]
        await self.refuse(503, self.file())

    async def test_an_upload_that_nobody_waits_for(self) -> None:
        inspected = asyncio.Event()

        async def inspect(archive: int) -> Inspection:
            inspected.set()
            await asyncio.Event().wait()
            raise AssertionError("never reached")

        self.runner.inspect = inspect  # type: ignore[method-assign]
        asking = asyncio.create_task(self.submit(files=self.file("job.tar.gz", b"\x1f\x8b")))
        await asyncio.wait_for(inspected.wait(), 5)
        self.assertEqual(len(held(os.getpid())), len(self.before) + 2)
        asking.cancel()
        await asyncio.wait((asking,))
        self.assertEqual(held(os.getpid()), self.before)

    async def test_an_accepted_one_is_held_once_and_until_the_end(self) -> None:
        body = await self.submit(files=self.file(content=bytes(12_345)))
        self.assertEqual(held(os.getpid()), sorted([*self.before, 12_345]))
        self.runner.release()
        await asyncio.wait_for(self.engine.store.find(body["job_id"]).over.wait(), 5)
        self.assertEqual(held(os.getpid()), self.before)


class TooMuch(ApiCase):
    config = Config(upload_bytes=64 * 1024, slots=1, queue_length=1, submit_rate="4/m")
    hold = True

    async def test_a_body_over_the_limit(self) -> None:
        files = self.file(content=bytes(70_000))
        self.assertEqual((await self.submit(files=files, status=413))["reason"], "too_large")

    async def test_a_full_queue_says_when_to_come_back(self) -> None:
        await self.submit()
        await self.submit()
        response = await self.client.post("/submit", {"files": self.file()})
        self.assertEqual(response.status_code, 503)
        self.assertEqual(response["Retry-After"], str(response.json()["retry_after"]))

    async def test_a_client_that_asks_too_often(self) -> None:
        answers = [await self.client.post("/submit", {"x": "y"}) for _ in range(5)]
        self.assertEqual([answer.status_code for answer in answers], [400] * 4 + [429])
        self.assertGreater(int(answers[4]["Retry-After"]), 0)
        self.assertEqual(answers[4].json()["reason"], "rate_limited")
        self.client.defaults["X_FORWARDED_FOR"] = "203.0.113.9"
        self.assertEqual((await self.client.post("/submit", {"x": "y"})).status_code, 429)

    async def test_no_quotas_means_no_rate(self) -> None:
        config = Config(quotas=False, submit_rate="1/m")
        self.client.site = self.client.site._replace(config=config)
        for _ in range(3):
            await self.submit(x="y", status=400)


class Watching(ApiCase):
    async def test_status_of_a_completed_job(self) -> None:
        self.runner.files = {"plot.png": b"12345"}
        job_id = await self.run_one()
        body = await self.get(f"/status/{job_id}")
        self.assertEqual(
            {name: body[name] for name in ("job_id", "status", "queue_position", "reason")},
            {"job_id": job_id, "status": "completed", "queue_position": 0, "reason": None},
        )
        self.assertEqual(
            body["execution_metadata"],
            {
                "cpu_seconds": 0.012345,
                "memory_peak_bytes": 7340033,
                "memory_peak_mb": 7,
                "wall_time_ms": 50,
                "exit_code": 0,
                "environment": "",
                "interpreter": "python3",
            },
        )
        self.assertEqual(
            body["metrics"], {"cpu_seconds": 0.012345, "memory_mb": 7, "wall_seconds": 0.05}
        )
        self.assertEqual((body["memory_bytes"], body["wall_time"]), (7340033, 0.05))
        self.assertEqual(body["worker_metadata"], {"worker_id": None, "signature": None})
        self.assertRegex(body["job_hash"], r"^[0-9a-f]{64}$")
        self.assertEqual(body["output_files"]["plot.png"]["type"], "image")
        self.assertEqual(body["created_at"], "2027-01-15T08:00:00Z")
        self.assertEqual(body["expires_at"], "2027-01-15T08:05:00Z")

    async def test_status_of_a_failed_job(self) -> None:
        self.runner.verdict = {"reason": "signal", "exit_code": None, "signal": 11}
        body = await self.get(f"/status/{await self.run_one()}")
        self.assertEqual((body["status"], body["reason"], body["signal"]), ("failed", "signal", 11))
        self.assertEqual((body["execution_metadata"]["exit_code"], body["stage"]), (-1, "run"))
        self.runner.verdict = {"reason": "exit", "exit_code": 1}
        self.client.site.engine.runner = self.runner
        body = await self.submit({"interpreter": "c", "entrypoint": "main.py"})
        body = await self.get(f"/status/{body['job_id']}?wait=5")
        self.assertEqual((body["stage"], body["execution_metadata"]["exit_code"]), ("compile", 1))

    async def test_status_of_a_job_that_we_failed(self) -> None:
        self.runner.error = SandboxError("pivot_root", 22)
        body = await self.get(f"/status/{await self.run_one()}")
        self.assertEqual((body["status"], body["reason"]), ("failed", "sandbox_error"))
        self.assertIn("pivot_root", body["error"])

    async def test_wait_must_be_a_number(self) -> None:
        job_id = await self.run_one()
        for wait in ("x", "-1", "1e3", "", "1.5", "%2b1", "\u0661"):
            await self.get(f"/status/{job_id}?wait={wait}", 400)
        for wait in ("0", "000", "99999", "9999999", "9" * 5000):
            await self.get(f"/status/{job_id}?wait={wait}")

    def test_a_longer_wait_is_the_longest(self) -> None:
        for wait, seconds in (("", 0), ("7", 7), ("0" * 20 + "7", 7), ("9" * 5000, 60)):
            request = AsyncRequestFactory().get("/", {"wait": wait} if wait else {})
            self.assertEqual(_wait_seconds(request), seconds)

    async def test_too_many_query_parameters(self) -> None:
        await self.get(f"/status/{await self.run_one()}?" + "a&" * 5000, 400)

    async def test_logs_as_json(self) -> None:
        self.runner.stdout = "é <b>\0\x1b[1m".encode() + b"\xff\xed\xa0\x80" + b"\xc3"
        self.runner.stderr = b'"\\\n'
        body = await self.get(f"/logs/{await self.run_one()}")
        self.assertEqual(body["stdout"], "é <b>\0\x1b[1m\ufffd\ufffd\ufffd\ufffd\ufffd")
        self.assertEqual((body["stderr"], body["truncated"]), ('"\\\n', False))

    async def test_logs_as_text_are_the_very_bytes(self) -> None:
        self.runner.stdout, self.runner.stderr = bytes(range(256)), b"<script>"
        job_id = await self.run_one()
        response = await self.client.get(f"/logs/{job_id}", headers={"accept": "text/plain"})
        self.assertEqual(response.content, bytes(range(256)) + b"<script>")
        self.assertEqual(response["Content-Type"], "text/plain; charset=utf-8")
        response = await self.client.get(f"/logs/{job_id}?stream=stderr")
        self.assertEqual(response.content, b"<script>")
        await self.get(f"/logs/{job_id}?stream=x", 400)
        self.assertIn("stdout", await self.get(f"/logs/{job_id}", accept="text/plain;q=0"))

    async def test_a_large_log_comes_in_pieces_with_its_gap_told(self) -> None:
        self.runner.stdout = ("é" * (8 << 20)).encode()
        response = await self.client.get(f"/logs/{await self.run_one()}")
        self.assertTrue(response.streaming)
        pieces = [piece async for piece in response.streaming_content]
        self.assertLess(max(map(len, pieces)), 1 << 20)
        body = json.loads(b"".join(pieces))
        self.assertEqual((body["truncated"], body["stdout_dropped_bytes"]), (True, 6 << 20))
        self.assertEqual(body["stdout_bytes"], 16 << 20)
        self.assertLessEqual(set(body["stdout"]), {"é", "\ufffd"})

    async def test_outputs_as_names_and_as_objects(self) -> None:
        self.runner.files = {"a/plot.PNG": bytes(2048), "x": b""}
        job_id = await self.run_one()
        body = await self.get(f"/outputs/{job_id}")
        self.assertEqual((body["files"], body["total_files"]), (["a/plot.PNG", "x"], 2))
        self.assertEqual(
            body["outputs"][0] | {"sha256": ""},
            {
                "name": "a/plot.PNG",
                "path": "a/plot.PNG",
                "size": 2048,
                "size_bytes": 2048,
                "size_formatted": "2.0 KB",
                "type": "image",
                "mime_type": "image/png",
                "sha256": "",
                "download_url": f"/download/{job_id}/a/plot.PNG",
            },
        )
        self.assertEqual((body["status"], body["truncated"]), ("completed", False))

    async def test_unknown_and_forgotten_jobs_look_the_same(self) -> None:
        job_id = await self.run_one()
        self.clock.forward(301)
        self.engine.sweep()
        for path in ("status", "logs", "outputs"):
            gone = await self.client.get(f"/{path}/{job_id}")
            never = await self.client.get(f"/{path}/job-{'0' * 32}")
            self.assertEqual((gone.status_code, gone.content), (404, never.content))
            self.assertEqual(gone.json()["error"], "Job not found")
        for other in (job_id.upper(), job_id + "%20", job_id[:-1]):
            await self.get(f"/status/{other}", 404)
        await self.get(f"/download/{job_id}/x", 404)


class Held(ApiCase):
    hold = True
    config = Config(slots=1)

    async def test_running_and_queued_jobs(self) -> None:
        first, second = [(await self.submit())["job_id"] for _ in range(2)]
        self.clock.forward(2.5)
        body = await self.get(f"/status/{first}")
        self.assertEqual((body["status"], body["expires_at"]), ("running", None))
        self.assertEqual(body["execution_metadata"]["wall_time_ms"], 2500)
        self.assertEqual(body["execution_metadata"]["exit_code"], 0)
        body = await self.get(f"/status/{second}")
        self.assertEqual((body["status"], body["queue_position"]), ("queued", 1))
        self.assertEqual((await self.get(f"/outputs/{second}"))["total_files"], 0)
        await self.get(f"/download/{first}/main.py", 404)
        self.runner.release()
        for job_id in (first, second):
            await asyncio.wait_for(self.engine.store.find(job_id).over.wait(), 5)

    async def test_wait_returns_as_soon_as_the_job_is_over(self) -> None:
        job_id = (await self.submit())["job_id"]
        waiting = asyncio.create_task(self.get(f"/status/{job_id}?wait=30"))
        await asyncio.sleep(0)
        self.runner.release()
        body = await asyncio.wait_for(waiting, 5)
        self.assertEqual(body["status"], "completed")


class Downloading(ApiCase):
    NAMES = (
        'a"b.txt',
        "a\r\nSet-Cookie: x=1",
        "ü/ö.txt",
        "\udcff\udcfe",
        "\u202egnp.exe",
        "x" * 255,
        " ",
        "%2e%2e%2f",
        "<img src=x onerror=alert(1)>",
        "a;b",
        "-",
        "a?b#c",
        "a\\b",
    )

    async def test_every_name_can_be_listed_and_fetched(self) -> None:
        self.runner.files = {name: name.encode("utf-8", "surrogateescape") for name in self.NAMES}
        job_id = await self.run_one()
        body = await self.get(f"/outputs/{job_id}")
        self.assertEqual(len(set(body["files"])), len(self.NAMES))
        for name, output in zip(self.NAMES, body["outputs"], strict=True):
            with self.subTest(name):
                response = await self.fetch(output["download_url"])
                self.assertEqual(response.status_code, 200)
                content = b"".join([piece async for piece in response.streaming_content])
                self.assertEqual(content, name.encode("utf-8", "surrogateescape"))
                self.assertEqual(response["Content-Length"], str(len(content)))
                self.assertRegex(
                    response["Content-Disposition"],
                    r"^attachment; filename=\"[A-Za-z0-9._ -]*\"; filename\*=UTF-8''[\w.~%-]*$",
                )

    async def fetch(self, url: str) -> Any:
        """As our server gives it to Django: decoded, and raw beside it."""
        scope = {"path": unquote(url), "raw_path": url.encode(), "headers": [], "query_string": b""}
        return await self.client.request(**scope)

    async def test_nothing_is_served_as_something_that_runs(self) -> None:
        kinds = {
            "e.html": "application/octet-stream",
            "e.svg": "application/octet-stream",
            "e.js": "application/octet-stream",
            "e.xhtml": "application/octet-stream",
            "e.css": "application/octet-stream",
            "e.png": "image/png",
        }
        self.runner.files = {name: b"<script>" for name in kinds}
        job_id = await self.run_one()
        for name, kind in kinds.items():
            response = await self.client.get(f"/download/{job_id}/{name}")
            self.assertEqual(response["Content-Type"], kind)
            self.assertTrue(response["Content-Disposition"].startswith("attachment"))
            self.assertEqual(response["Content-Security-Policy"], "sandbox; default-src 'none'")
            self.assertEqual(response["X-Content-Type-Options"], "nosniff")
            self.assertEqual(response["Cross-Origin-Resource-Policy"], "same-origin")

    async def test_only_what_came_out_is_served(self) -> None:
        self.runner.files = {"out.txt": b"x"}
        job_id = await self.run_one()
        for name in (
            "main.py",
            "../../etc/passwd",
            "%2e%2e/%2e%2e/etc/passwd",
            "..%2f..%2fetc%2fpasswd",
            "%252e%252e",
            "..%5c",
            "/etc/passwd",
            "%2Fetc%2Fpasswd",
            "out.txt%00",
            "out.txt/",
            "x" * 16_000,
            "",
        ):
            with self.subTest(name[:30]):
                response = await self.fetch(f"/download/{job_id}/{name}")
                self.assertEqual(response.status_code, 404)

    async def test_an_encoded_slash_is_a_slash(self) -> None:
        self.runner.files = {"a/b": b"x"}
        job_id = await self.run_one()
        for url in (
            f"/download/{job_id}/a%2Fb",
            f"/download/{job_id}%2Fa%2Fb",
            f"/download%2F{job_id}/a/b",
            f"%2Fdownload%2F{job_id}%2Fa%2Fb",
        ):
            self.assertEqual((await self.fetch(url)).status_code, 200)

    async def test_a_large_file_comes_in_pieces(self) -> None:
        self.runner.files = {"small": b"x", "big": bytes(1 << 20) + b"end"}
        job_id = await self.run_one()
        response = await self.client.get(f"/download/{job_id}/big")
        pieces = [piece async for piece in response.streaming_content]
        self.assertEqual(b"".join(pieces), bytes(1 << 20) + b"end")
        self.assertLessEqual(max(map(len, pieces)), 64 * 1024)

    async def test_looking_and_fetching_deletes_nothing(self) -> None:
        self.runner.files = {"a": b"x"}
        job_id = await self.run_one()
        for _ in range(2):
            response = await self.client.head(f"/download/{job_id}/a")
            self.assertEqual((response.status_code, response.content), (200, b""))
            response = await self.client.get(f"/download/{job_id}/a")
            self.assertEqual([piece async for piece in response.streaming_content], [b"x"])

    def test_the_name_in_the_header_cannot_end_it(self) -> None:
        for raw in (bytes(range(1, 256)), b'x"\r\n: ', b""):
            self.assertTrue(disposition(raw).isprintable())
            self.assertTrue(disposition(raw).isascii())


class Guarded(ApiCase):
    async def test_every_answer_is_hardened(self) -> None:
        job_id = await self.run_one()
        for path in ("/", "/health", f"/status/{job_id}", f"/logs/{job_id}", "/nope", "/submit"):
            response = await self.client.get(path)
            self.assertEqual(response["Cache-Control"], "no-store")
            self.assertEqual(response["X-Content-Type-Options"], "nosniff")
            self.assertEqual(response["Referrer-Policy"], "no-referrer")
            self.assertEqual(response["X-Frame-Options"], "DENY")
            self.assertEqual(response["Cross-Origin-Opener-Policy"], "same-origin")
            self.assertEqual(response["X-Robots-Tag"], "noindex")
            self.assertIn("default-src 'none'", response["Content-Security-Policy"])
            for name in ("ETag", "Last-Modified", "Server", "Access-Control-Allow-Origin"):
                self.assertNotIn(name, response)
            self.assertEqual(response.cookies, {})

    async def test_names_that_are_not_ours(self) -> None:
        for host in (
            "evil.example",
            "localhost.evil.example",
            "evil.example:8443",
            "localhost@evil",
            "169.254.169.254",
            "",
            None,
            "a b",
            "\xff",
            "localhost:8443, evil",
        ):
            with self.subTest(host):
                self.client.host = host
                body = await self.get("/", 400)
                self.assertNotIn("evil", json.dumps(body))
        for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8443", "[::1]:8443"):
            self.client.host = host
            await self.get("/health")

    async def test_forwarded_names_mean_nothing(self) -> None:
        self.client.host = "evil.example"
        await self.get("/", 400, **{"x-forwarded-host": "localhost", "forwarded": "host=localhost"})

    async def test_other_web_sites_cannot_submit(self) -> None:
        for headers in (
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"origin": ""},
            {"origin": "http://localhost:8443.evil.example"},
            {"origin": "http://localhost:8000"},
            {"origin": "file://localhost:8443"},
            {"origin": "http://[", "sec-fetch-site": "same-origin"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"origin": "http://localhost:8443", "sec-fetch-site": "cross-site"},
        ):
            with self.subTest(headers):
                response = await self.client.post(
                    "/submit", {"files": self.file()}, headers=headers
                )
                self.assertEqual(response.status_code, 403)
                self.assertEqual(response.json()["reason"], "foreign_origin")
        self.assertEqual(len(self.engine.store), 0)

    async def test_websockets_are_refused_as_requests_are(self) -> None:
        job_id = await self.run_one()
        own = {"origin": "http://localhost:8443", "sec-fetch-site": "same-origin"}
        for path in ("/", f"/logs/{job_id}", "/nope"):
            for headers, status in (
                (own, 400),
                ({}, 400),
                ({"origin": "http://evil.example"}, 403),
                ({"origin": "null"}, 403),
                ({"sec-fetch-site": "cross-site"}, 403),
            ):
                for upgrade in ("websocket", "WebSocket", "h2c, websocket,"):
                    await self.get(path, status, upgrade=upgrade, **headers)
        self.client.host = "evil.example"
        body = await self.get("/", 400, upgrade="websocket")
        self.assertIn("Host", body["error"])
        self.client.host = "localhost"
        await self.get("/health", upgrade="h2c")

    async def test_our_own_page_and_programs_can_submit(self) -> None:
        for headers in (
            {},
            {"origin": "http://localhost:8443", "sec-fetch-site": "same-origin"},
            {"sec-fetch-site": "none"},
        ):
            response = await self.client.post("/submit", {"files": self.file()}, headers=headers)
            self.assertEqual(response.status_code, 200)

    async def test_other_methods(self) -> None:
        job_id = await self.run_one()
        for path in (
            "/",
            "/health",
            f"/status/{job_id}",
            f"/logs/{job_id}",
            f"/download/{job_id}/x",
        ):
            for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
                response = await self.client.generic(method, path)
                self.assertEqual(response.status_code, 405)
                self.assertEqual(response["Allow"], "GET, HEAD")
        response = await self.client.get("/submit")
        self.assertEqual((response.status_code, response["Allow"]), (405, "POST"))
        self.assertEqual(response.json()["error"], "Method not allowed")

    async def test_other_paths(self) -> None:
        for path in (
            "//submit",
            "/submit/",
            "/SUBMIT",
            "/submit;x",
            "/status",
            "/status/",
            "/status/a/b",
            "/admin",
            "/.git/config",
            "/x" * 8000,
            "/é",
            "/%00",
            "/a%0Ab",
        ):
            with self.subTest(path[:20]):
                self.assertEqual((await self.get(path, 404))["reason"], "unknown_path")

    async def test_a_bug_tells_nothing_to_the_client_and_no_data_to_the_log(self) -> None:
        def broken(job_id: str) -> None:
            raise KeyError(job_id)

        self.engine.store.find = broken  # type: ignore[assignment]
        with self.assertLogs("jobs.api.errors", "ERROR") as logged:
            body = await self.get("/status/job-secret", 500)
        self.assertEqual(body["reason"], "internal")
        self.assertNotIn("job-secret", json.dumps(body) + "".join(logged.output))
        self.assertIn("KeyError", "".join(logged.output))
