"""The HTTP reference, endpoint by endpoint, over a FakeRunner."""

import asyncio
import gc
import hashlib
import io
import json
import os
import tarfile
import unittest
import zipfile
from collections.abc import Callable
from typing import Any
from unittest import mock
from urllib.parse import unquote

from django.core.cache import caches
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import AsyncClient, AsyncRequestFactory

from jobs.api import clients
from jobs.api.downloads import disposition
from jobs.api.parameters import wait_seconds
from jobs.api.site import SCOPE_KEY, Interpreter, Site
from jobs.api.views import TRAILERS_KEY
from jobs.conf import Config
from jobs.engine import Engine
from jobs.errors import Full
from jobs.job import Job
from sandbox import runtimes
from sandbox.errors import BundleRefused, SandboxError
from sandbox.model import Inspection, Member, Result
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
            (body["service"], body["status"], body["quotas"]["jobs_per_hour"]),
            ("sandrun", "running", 20),
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
        self.assertIn("/static/", text)

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
        self.assertEqual(
            body["errors"],
            [{"pointer": "/entrypoint", "detail": f"{body['error']}. {body['details']}"}],
        )

    async def test_warnings_are_told_at_once_and_later(self) -> None:
        body = await self.submit({"gpu": {"required": False}})
        self.assertEqual(len(body["warnings"]), 1)
        status = await self.get(f"/status/{body['job_id']}")
        self.assertEqual(status["warnings"], body["warnings"])

    async def test_other_kinds_of_body(self) -> None:
        for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded"):
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

    async def test_an_archive_may_hold_names_that_are_no_text(self) -> None:
        member = Member("x\udcff.py", 1, 0, 0o644, "00")
        self.runner.inspection = Inspection((member,), None)
        body = await self.submit(files=self.file("job.tar.gz", b"\x1f\x8b"))
        self.assertRegex(body["job_hash"], "^[0-9a-f]{64}$")

    async def test_a_part_with_a_mistyped_name(self) -> None:
        body = await self.submit(files=self.file(), manifst="{}", status=400)
        self.assertIn("almost like 'manifest'", body["error"])

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
        self.engine.admit = lambda: None  # type: ignore[method-assign]

        def submit(*args: object) -> None:
            raise Full("The queue is full", 10)

        self.engine.submit = submit  # type: ignore[assignment, method-assign]
        await self.refuse(503, self.file())

    async def test_an_upload_that_nobody_waits_for(self) -> None:
        inspected = asyncio.Event()

        async def inspect(archive: int, on_cpu: Callable[[float], None]) -> Inspection:
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
    config = Config(
        upload_bytes=64 * 1024, slots=1, queue_length=1, submit_rate="4/m", concurrent_jobs=9
    )
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
        forged = {"x-forwarded-for": "203.0.113.9"}
        response = await self.client.post("/submit", {"x": "y"}, headers=forged)
        self.assertEqual(response.status_code, 429)

    async def test_who_asked_is_forgotten_when_the_count_is_over(self) -> None:
        cache = caches["ratelimit"]
        await self.submit(x="y", status=400)
        self.assertEqual(len(cache._expire_info), 1)
        cache._expire_info = dict.fromkeys(cache._expire_info, 1.0)  # long ago
        with mock.patch.object(clients, "_swept", -1e9):
            await self.get("/stats")
        self.assertEqual(len(cache._expire_info), 1)  # that of /stats

    async def test_no_quotas_means_no_rate(self) -> None:
        config = Config(quotas=False, submit_rate="1/m")
        self.client.site = self.client.site._replace(config=config)
        for _ in range(3):
            await self.submit(x="y", status=400)


class Quotas(ApiCase):
    hold = True

    async def test_a_third_job_hears_why_not_and_when(self) -> None:
        for _ in range(2):
            await self.submit()
        response = await self.client.post("/submit", {"files": self.file()})
        body = response.json()
        self.assertEqual(response.status_code, 429)
        self.assertEqual(body["error"], "Max concurrent jobs reached (2)")
        self.assertEqual((body["reason"], body["retry_after"]), ("concurrent_jobs", 5))
        self.assertEqual((body["cpu_available"], body["active_jobs"]), (10.0, 2))
        self.assertEqual(response["Retry-After"], "5")
        self.assertEqual(
            response["RateLimit"], '"cpu";r=10;t=0, "hourly";r=18;t=3600, "concurrent";r=0'
        )
        self.assertEqual(
            response["RateLimit-Policy"],
            '"cpu";q=10;w=60, "hourly";q=20;w=3600, "concurrent";q=2;qu="concurrent-requests"',
        )

    async def test_whatever_is_refused_costs_no_quota_but_what_its_inspection_took(self) -> None:
        self.runner.inspection = BundleRefused("damaged")
        for _ in range(25):
            await self.submit("{", 400)
            await self.submit({"entrypoint": "x"}, 400)
            await self.submit(files=self.file("job.tar.gz", b"\x1f\x8b"), status=400)
        self.runner.inspection = SandboxError("mount", 13)
        await self.submit(files=self.file("job.tar.gz", b"\x1f\x8b"), status=503)
        stats = await self.get("/stats")
        self.assertEqual(
            {key: stats["your_quota"][key] for key in ("used", "active_jobs", "can_submit")},
            {"used": 26 * 0.01, "active_jobs": 0, "can_submit": True},
        )
        self.assertEqual(stats["your_quota"]["jobs_left_this_hour"], 20)

    async def test_stats_say_what_a_submission_would_hear(self) -> None:
        self.runner.release()
        for _ in range(20):
            await self.run_one()
        body = await self.get("/stats")
        self.assertEqual(body["system"], {"queue_length": 0, "active_jobs": 0, "slots": 4})
        quota = body["your_quota"]
        self.assertEqual((quota["limit"], quota["can_submit"]), (10.0, False))
        self.assertEqual(quota["reason"], "Max jobs per hour reached (20)")
        self.assertAlmostEqual(quota["used"] + quota["available"], 10.0)
        self.assertEqual((await self.submit(status=429))["reason"], "hourly_jobs")

    async def test_behind_a_trusted_proxy_each_client_has_its_own(self) -> None:
        config = Config(trust_proxy=("127.0.0.0/8", "10.0.0.0/8"))
        self.client.site = self.client.site._replace(config=config)
        self.assertEqual(await self.from_behind("6.6.6.6, 203.0.113.9, 10.1.1.1"), 200)
        self.assertEqual(await self.from_behind("203.0.113.9"), 200)
        for same in ("203.0.113.9", "1.2.3.4, 203.0.113.9", "::ffff:203.0.113.9, 127.0.0.1"):
            self.assertEqual(await self.from_behind(same), 429)
        self.assertEqual(await self.from_behind("203.0.113.9, 203.0.113.10"), 200)
        for own in ("203.0.113.11, nonsense", "", "10.1.1.1"):  # two clients: both proxies
            self.assertEqual(await self.from_behind(own), 200, own)

    async def test_a_proxy_may_write_the_port_as_well(self) -> None:
        config = Config(trust_proxy=("127.0.0.0/8",))
        self.client.site = self.client.site._replace(config=config)
        for one, other, same in (
            ("198.51.100.1:5678", "198.51.100.1:99", "198.51.100.1"),
            ("[2001:db8::1]:80", "[2001:db8::2]", "2001:db8::3"),
        ):
            self.assertEqual(await self.from_behind(one), 200)
            self.assertEqual(await self.from_behind(other), 200)
            self.assertEqual(await self.from_behind(same), 429)

    async def from_behind(self, forwarded: str) -> int:
        headers = {"x-forwarded-for": forwarded} if forwarded else {}
        response = await self.client.post("/submit", {"files": self.file()}, headers=headers)
        return int(response.status_code)


class Running(ApiCase):
    """POST /run, ?wait= and JSON: one request, and everything comes back."""

    async def run_code(self, query: str = "", code: bytes = b"print(1)", **headers: str) -> Any:
        """The response; `printed` is what came of it, up to the job's end."""
        response = await self.client.post(
            f"/run{query}", code, content_type="application/x-www-form-urlencoded", headers=headers
        )
        if response.streaming:
            response.printed = b"".join([piece async for piece in response.streaming_content])
        return response

    async def test_the_body_is_code_and_the_answer_what_it_prints(self) -> None:
        self.runner.stdout, self.runner.stderr = b"42\n", b"warning\n"
        self.runner.verdict = {"reason": "exit", "exit_code": 3}
        run, ran = self.runner.run, []

        async def seen(job: Job) -> Result:
            ran.append(job.manifest)  # its texts are gone when it is over
            return await run(job)

        self.runner.run = seen  # type: ignore[method-assign]
        response = await self.run_code("?args=a%20b&args=%C3%A9&timeout=7&cpu_seconds=1.5")
        self.assertEqual((response.status_code, response.printed), (200, b"42\nwarning\n"))
        self.assertEqual(
            response.asgi_request.scope[TRAILERS_KEY],
            {
                "X-Sandrun-Status": "failed",
                "X-Sandrun-Reason": "exit",
                "X-Sandrun-Exit-Code": "3",
            },
        )
        (asked,) = ran
        self.assertEqual((asked.entrypoint, asked.interpreter), ("main.py", "python3"))
        self.assertEqual((asked.args, asked.timeout, asked.cpu_seconds), (("a b", "é"), 7, 1.5))

    async def test_everything_as_json(self) -> None:
        self.runner.stdout, self.runner.files = b"42\n", {"a.txt": b"x"}
        body = (await self.run_code(accept="application/json")).json()
        self.assertEqual((body["status"], body["logs"]["stdout"]), ("completed", "42\n"))
        self.assertEqual([output["path"] for output in body["outputs"]], ["a.txt"])
        self.engine.check_owner(self.engine.store.find(body["job_id"]), body["owner_token"])

    async def test_the_language_is_told_or_stands_in_the_first_line(self) -> None:
        for query, code, entrypoint, interpreter in (
            ("?interpreter=node", b"1", "index.js", "node"),
            ("?environment=perl", b"1", "main.pl", "perl"),
            ("", b"#!/bin/bash\nls", "run.sh", "bash"),
            ("", b"#!/usr/bin/env -S node --x\n", "index.js", "node"),
            ("", b"#! /usr/bin/python\n", "main.py", "python3"),
            ("", b"#!/usr/bin/unknown\n", "main.py", "python3"),
            ("?environment=default", b"#!/bin/bash\nls", "run.sh", "bash"),
            ("?environment=", b"1", "main.py", "python3"),
            ("?interpreter=sh", b"ls", "main", "sh"),
            ("?interpreter=sh&entrypoint=other", b"ls", None, None),
        ):
            response = await self.run_code(query, code)
            if entrypoint is None:
                self.assertEqual(response.status_code, 400, query)
                continue
            asked = self.engine.store.find(response["X-Sandrun-Job"]).manifest
            self.assertEqual((asked.entrypoint, asked.interpreter), (entrypoint, interpreter))

    async def test_what_makes_no_sense_is_refused(self) -> None:
        for query, code, word in (
            ("", b"", "empty"),
            ("?timeot=3", b"1", "timeot"),
            ("?timeout=3&timeout=4", b"1", "twice"),
            ("?timeout=x", b"1", "timeout"),
            ("?timeout=1e9", b"1", "timeout"),
            ("?interpreter=cobol", b"1", "cobol"),
            ("?stdin_live=yes", b"1", "stdin_live must be true or false"),
            ("?wait=x", b"1", "wait"),
        ):
            response = await self.run_code(query, code)
            self.assertEqual(response.status_code, 400, query)
            self.assertIn(word, response.json()["error"], query)
        self.assertEqual(len(self.engine.store), 0)

    async def test_what_does_not_end_in_time_goes_on(self) -> None:
        self.engine.runner = FakeRunner(hold=True)
        response = await self.run_code("?wait=0")
        self.assertEqual(response.status_code, 202)
        self.assertEqual(response.json()["status"], "running")
        self.assertEqual(response["Location"], f"/status/{response.json()['job_id']}")

    async def test_submit_can_wait(self) -> None:
        self.runner.stdout = b"1\n"
        response = await self.client.post("/submit?wait=5", {"files": self.file()})
        body = response.json()
        self.assertEqual((body["status"], body["logs"]["stdout"]), ("completed", "1\n"))
        self.assertTrue({"job_id", "owner_token", "outputs", "expires_at"} <= body.keys())
        body = await self.get(f"/status/{body['job_id']}?wait=5")
        self.assertEqual((body["logs"]["stdout"], body["outputs"]), ("1\n", []))

    async def send_json(self, body: Any, status: int = 200) -> Any:
        raw = body if isinstance(body, (bytes, str)) else json.dumps(body)
        response = await self.client.post("/submit", raw, content_type="application/json; x=y")
        self.assertEqual(response.status_code, status, response.content)
        return response.json()

    async def test_files_inside_json(self) -> None:
        files = {"main.py": "print('é')", "data/b": {"base64": "AAH/"}, "job.json": "{}"}
        body = await self.send_json({"files": files, "manifest": {"args": ["x"]}})
        job = self.engine.store.find(body["job_id"])
        self.assertEqual(job.manifest.args, ("x",))
        sizes = {member.path: member.size for member in job.bundle.members}
        self.assertEqual(sizes, {"main.py": 11, "data/b": 3, "job.json": 2})
        await self.send_json({"files": {"main.py": "1", "job.json": '{"timeout": 9}'}})

    async def test_json_that_is_no_upload(self) -> None:
        for body, word in (
            ("{", "valid JSON"),
            ("[" * 100_000, "must be like"),
            ('{"files": {}, "manifest": ' + "[" * 100_000, "valid JSON"),
            ("[]", "must be like"),
            ({"files": []}, "must be like"),
            ({"files": {}}, "No files uploaded"),
            ({"files": {"a.py": 1}}, "must be like"),
            (b'{"files": {"a.py": "\xff"}}', "valid JSON"),
            (b'{"files": {"\xff": ""}}', "valid JSON"),
            (b'{"files": {"a.py": ""}, "manifest": {"args": ["\xff"]}}', "UTF-8"),
            ('{"files": {"a.py": ""}, "manifest": {"timeout": 1, "timeout": 2}}', "twice"),
            ('{"files": {"a.py": ""}, "files": {"b.py": ""}}', "twice"),
            ('{"files": {"a.py": ""}, "f\\u0069les": {"b.py": ""}}', "twice"),
            ('{"files": {"a.py": ""}, "manifest": {}, "manifest": {"timeout": 1}}', "twice"),
            ('{"files": {"a.py": ""}, "manifest": {"timeout": ' + "9" * 5000 + "}}", "too long"),
            ({"files": {"a.py": {"base64": "!"}}}, "base64"),
            ({"files": {"a.py": {"base64": "AA==", "x": 1}}}, "must be like"),
            ({"files": {"../a.py": ""}}, "leads out"),
            ({"files": {"a.py": ""}, "manifest": []}, "manifest must be"),
            ({"files": {"a.py": ""}, "manifst": {}}, "must be like"),
            (b"\xff", "valid JSON"),
        ):
            self.assertIn(word, (await self.send_json(body, 400))["error"], str(body)[:80])
        self.assertEqual(len(self.engine.store), 0)
        big = b'{"files": {"a.py": "' + b"x" * (16 << 20) + b'"}}'
        self.assertEqual((await self.send_json(big, 413))["reason"], "too_large")


class Owning(ApiCase):
    hold = True

    def bearer(self, token: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}"}

    async def test_only_the_owner_cancels(self) -> None:
        body = await self.submit()
        path = f"/jobs/{body['job_id']}/cancel"
        response = await self.client.post(path)
        self.assertEqual((response.status_code, response["WWW-Authenticate"]), (401, "Bearer"))
        for token in ("", "x", body["job_id"]):
            response = await self.client.post(path, headers=self.bearer(token))
            self.assertEqual((response.status_code, response.json()["reason"]), (403, "not_owner"))
        self.assertEqual((await self.get(f"/status/{body['job_id']}"))["status"], "running")
        for _ in range(2):
            response = await self.client.post(path, headers=self.bearer(body["owner_token"]))
            answer = response.json()
            self.assertEqual((answer["status"], answer["reason"]), ("failed", "cancelled"))

    async def test_a_deleted_job_never_was(self) -> None:
        self.runner.release()
        for state in ("over", "running"):
            self.engine.runner = FakeRunner(hold=state == "running")
            body = await self.submit()
            path = f"/jobs/{body['job_id']}"
            self.assertEqual((await self.client.delete(path)).status_code, 401)
            response = await self.client.delete(path, headers=self.bearer(body["owner_token"]))
            self.assertEqual(response.json(), {"job_id": body["job_id"], "deleted": True})
            for where in ("status", "logs", "outputs", "download"):
                answer = await self.get(f"/{where}/{body['job_id']}", 404)
                self.assertEqual(answer["error"], "Job not found")
            response = await self.client.delete(path, headers=self.bearer(body["owner_token"]))
            self.assertEqual(response.status_code, 404)

    async def test_methods_are_what_they_are(self) -> None:
        for method, path in (
            ("get", "/jobs/x"),
            ("get", "/jobs/x/cancel"),
            ("delete", "/status/x"),
            ("get", "/run"),
            ("post", "/stats"),
        ):
            response = await getattr(self.client, method)(path)
            self.assertEqual(response.status_code, 405, path)
            self.assertEqual(response["Content-Type"], "application/problem+json")


class Everything(ApiCase):
    """GET /download/{id}: all outputs as one archive."""

    async def fetch(self, path: str) -> Any:
        response = await self.client.get(path)
        content = b"".join([piece async for piece in response.streaming_content])
        return response, content

    async def test_as_tar_gz_or_zip(self) -> None:
        self.runner.files = {"a.txt": b"text", "b/é": b""}
        job_id = await self.run_one()
        response, content = await self.fetch(f"/download/{job_id}")
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            self.assertEqual(tar.getnames(), ["a.txt", "b/é"])
        self.assertEqual(response["Content-Type"], "application/gzip")
        self.assertIn(f'filename="{job_id}.tar.gz"', response["Content-Disposition"])
        response, content = await self.fetch(f"/download/{job_id}?format=zip")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            self.assertEqual(archive.read("a.txt"), b"text")
        self.assertEqual(response["Content-Type"], "application/zip")
        head = await self.client.head(f"/download/{job_id}")
        self.assertEqual((head.status_code, head.headers.get("Content-Length")), (200, None))
        await self.get(f"/download/{job_id}?format=rar", 400)

    async def test_long_lists_come_in_pieces_between_which_others_are_served(self) -> None:
        self.runner.files = {f"f{number}": b"" for number in range(1000)}
        job_id = await self.run_one()
        served = 0

        async def serve_others() -> None:
            nonlocal served
            while True:
                served += 1
                await asyncio.sleep(0)

        others = asyncio.create_task(serve_others())
        for path in ("status", "outputs", "status?wait=1"):
            name, _, query = path.partition("?")
            response = await self.client.get(f"/{name}/{job_id}?{query}")
            before, pieces = served, [piece async for piece in response.streaming_content]
            self.assertGreaterEqual(served - before, len(pieces) - 1)
            body = json.loads(b"".join(pieces))
            for known in (body.get("output_files"), body.get("files"), body.get("outputs")):
                self.assertIn(known and len(known), (None, 1000))
        others.cancel()

    async def test_none_is_an_empty_archive(self) -> None:
        _, content = await self.fetch(f"/download/{await self.run_one()}")
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            self.assertEqual(tar.getnames(), [])

    async def test_only_the_owner_deletes_with_it(self) -> None:
        self.runner.files = {"a.txt": b"text"}
        body = await self.submit()
        await self.get(f"/status/{body['job_id']}?wait=5")
        await self.get(f"/download/{body['job_id']}?delete=1", 401)
        response = await self.client.get(
            f"/download/{body['job_id']}?delete=1",
            headers={"authorization": f"Bearer {body['owner_token']}"},
        )
        content = b"".join([piece async for piece in response.streaming_content])
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            self.assertEqual(tar.getnames(), ["a.txt"])
        await self.get(f"/status/{body['job_id']}", 404)

    async def test_not_before_the_end(self) -> None:
        self.engine.runner = FakeRunner(hold=True)
        body = await self.submit()
        answer = await self.get(f"/download/{body['job_id']}", 409)
        self.assertEqual(answer["reason"], "not_over")

    async def test_environments_are_the_runtimes(self) -> None:
        body = await self.get("/environments")
        self.assertIn("python3", body["templates"])
        self.assertEqual(body["stats"]["total_templates"], len(body["templates"]))
        self.assertEqual(
            {one["version"] for one in body["environments"]},
            {f"{name} 1.0" for name in body["templates"]},
        )


class Invited(ApiCase):
    """--allow-origin: one web site more is at home here, and no other."""

    config = Config(allow_origin=("https://play.example",))
    site_headers = {"origin": "https://play.example", "sec-fetch-site": "cross-site"}

    async def test_its_pages_may_ask_and_read(self) -> None:
        for method, path, status in (
            ("get", "/", 200),
            ("post", "/submit", 400),
            ("get", "/x", 404),
        ):
            response = await getattr(self.client, method)(path, headers=self.site_headers)
            self.assertEqual(response.status_code, status)
            self.assertEqual(response["Access-Control-Allow-Origin"], "https://play.example")
            self.assertIn("Origin", response["Vary"])

    async def test_its_preflights_are_answered(self) -> None:
        response = await self.client.options("/jobs/x", headers=self.site_headers)
        self.assertEqual(response.status_code, 204)
        self.assertIn("DELETE", response["Access-Control-Allow-Methods"])
        self.assertIn("authorization", response["Access-Control-Allow-Headers"])

    async def test_no_other_is_let_in(self) -> None:
        for origin in (
            "null", "https://play.example.evil", "http://play.example", "https://play.example:444",
            "https://Play.example", "https://evil.example",
        ):  # fmt: skip
            headers = {**self.site_headers, "origin": origin}
            response = await self.client.post("/submit", headers=headers)
            self.assertEqual(response.status_code, 403, origin)
            for method in ("get", "options", "post"):
                response = await getattr(self.client, method)("/", headers=headers)
                self.assertNotIn("Access-Control-Allow-Origin", response.headers)
            self.assertIn("Origin", response["Vary"])

    async def test_without_the_setting_nobody_is(self) -> None:
        self.client.site = self.client.site._replace(config=Config())
        response = await self.client.get("/", headers=self.site_headers)
        self.assertNotIn("Access-Control-Allow-Origin", response.headers)
        self.assertEqual(
            (await self.client.options("/", headers=self.site_headers)).status_code, 405
        )


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
        self.assertEqual((body["memory_bytes"], body["wall_time"]), (7340033, 50))
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
            self.assertEqual(wait_seconds(request), seconds)

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

    async def test_a_query_that_would_be_taken_for_a_no_is_refused(self) -> None:
        job_id = await self.run_one()
        for query in ("follow=true", "follow=", "since=x", "format=xml", "since=999"):
            body = await self.get(f"/logs/{job_id}?{query}", 400)
            self.assertIn(query.partition("=")[0], body["error"])
        body = await self.get(f"/download/{job_id}?delete=true", 400)
        self.assertEqual(body["error"], "delete must be 1 or 0")
        await self.get(f"/logs/{job_id}?follow=0&format=sse&since=0")
        await self.get(f"/logs/{job_id}?follow=1&since=x", 400, **{"last-event-id": "0"})

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
        self.assertEqual((body["status"], body["expires_at"]), ("running", "2027-01-15T08:10:00Z"))
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

    async def part_of(self, **headers: str) -> tuple[int, bytes, Any]:
        """Status, body and headers for /download of a file of the digits."""
        if "digits" not in self.runner.files:
            self.runner.files = {"digits": b"0123456789"}
            self.job_id = await self.run_one()
        response = await self.client.get(f"/download/{self.job_id}/digits", headers=headers)
        if not response.streaming:
            return response.status_code, response.content, response.headers
        body = b"".join([piece async for piece in response.streaming_content])
        self.assertEqual(response["Content-Length"], str(len(body)))
        return response.status_code, body, response.headers

    async def test_a_part_of_a_file_can_be_asked_for(self) -> None:
        for asked, content, told in (
            ("bytes=2-4", b"234", "bytes 2-4/10"),
            ("bytes=0-0", b"0", "bytes 0-0/10"),
            ("bytes=7-", b"789", "bytes 7-9/10"),
            ("bytes=8-99", b"89", "bytes 8-9/10"),
            ("bytes=-3", b"789", "bytes 7-9/10"),
            ("bytes=-99", b"0123456789", "bytes 0-9/10"),
        ):
            status, body, headers = await self.part_of(range=asked)
            self.assertEqual((status, body, headers["Content-Range"]), (206, content, told), asked)

    async def test_what_is_no_range_is_the_whole_file(self) -> None:
        for asked in (
            *("", "bytes=", "bytes=-", "bytes=4-2", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b"),
            *("bytes= 1-2", "bytes=" + "9" * 30 + "-"),
        ):
            status, body, headers = await self.part_of(range=asked)
            self.assertEqual((status, body), (200, b"0123456789"), asked)
            self.assertEqual(headers["Accept-Ranges"], "bytes")

    async def test_a_range_behind_the_end_is_told_how_long_the_file_is(self) -> None:
        for asked in ("bytes=10-", "bytes=10-12", "bytes=-0", "bytes=999999-"):
            status, body, headers = await self.part_of(range=asked)
            self.assertEqual((status, headers["Content-Range"]), (416, "bytes */10"), asked)
            self.assertEqual(json.loads(body)["reason"], "invalid_range")

    async def test_who_has_the_file_is_not_sent_it_again(self) -> None:
        _, _, headers = await self.part_of()
        tag = headers["ETag"]
        self.assertEqual(tag, f'"{hashlib.sha256(b"0123456789").hexdigest()}"')
        for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            status, body, headers = await self.part_of(**{"if-none-match": known})
            self.assertEqual((status, body, headers["ETag"]), (304, b"", tag), known)
            self.assertNotIn("Content-Length", headers)
        status, _, _ = await self.part_of(**{"if-none-match": '"x"'})
        self.assertEqual(status, 200)
        for condition, expected in ((tag, 206), ('"x"', 200), (f"W/{tag}", 200)):
            status, _, _ = await self.part_of(**{"range": "bytes=1-2", "if-range": condition})
            self.assertEqual(status, expected, condition)

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
