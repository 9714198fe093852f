"""What somebody may have meant whose path, method or file name is not there, and what it costs to
look for it.
"""

import re
import time
import unittest

from jobs.api import paths
from jobs.similar import nearest
from tests.fakes import FakeRunner
from tests.jobs.test_api import ApiCase


class Meant(ApiCase):
    """What somebody may have meant."""

    async def test_paths_that_are_not_there(self) -> None:
        for path, meant in (
            ("/submit/", "POST /submit"),
            ("/api/v1/submit", "POST /submit"),
            ("/sumbit", "POST /submit"),
            ("/execute", "POST /run"),
            ("/job/job-1", "GET /status/JOB_ID"),
            ("/results/job-1", "GET /outputs/JOB_ID"),
            ("/status", "GET /status/JOB_ID"),
            ("/download/job-1/", "GET /download/JOB_ID/PATH"),
            ("/languages", "GET /environments"),
            ("/problems/no_such_reason", "GET /problems"),
        ):
            body = await self.get(path, 404)
            self.assertEqual(body["details"], f"Did you mean {meant}?")
            self.assertEqual((body["error"], body["reason"]), ("Not found", "unknown_path"))
        for path in ("/x", "/metrics", "/.env", "/favicon.ico", "/wp-login.php", "/static/stats"):
            body = await self.get(path, 404)
            self.assertTrue(body["details"].startswith("The first words of the API's paths are"))

    def test_every_path_of_the_api_is_among_them(self) -> None:
        from jobs.api.urls import urlpatterns

        known = {re.search(r"\w+", str(one.pattern).replace(r"(?s)\A", "")) for one in urlpatterns}
        self.assertEqual({found[0] for found in known if found} - set(paths._PATHS), set())

    async def test_methods_that_a_path_does_not_take(self) -> None:
        for method, path, takes in (
            ("get", "/submit", "POST"),
            ("post", "/stats", "GET, HEAD"),
            ("put", "/jobs/x", "DELETE"),
        ):
            response = await getattr(self.client, method)(path)
            self.assertEqual((response.status_code, response["Allow"]), (405, takes))
            self.assertEqual(response.json()["details"], f"This path takes {takes}.")

    async def test_files_that_a_job_did_not_leave(self) -> None:
        self.runner.files = {"results/plot.png": b"1", "out.txt": b"", "a\nb\udcff.txt": b""}
        job = await self.run_one()
        for asked, meant in (
            ("plot.png", "'results/plot.png'"),
            ("other/plot.png", "'results/plot.png'"),
            ("OUT.TXT", "'out.txt'"),
            ("out.tx", "'out.txt'"),
            ("a%0abb.txt", "'a?b\\xff.txt'"),
        ):
            body = await self.get(f"/download/{job}/{asked}", 404)
            self.assertEqual(body["details"], f"Did you mean {meant}? All are in /outputs/{job}.")
        body = await self.get(f"/download/{job}/nothing-like-it", 404)
        self.assertEqual(body["details"], f"All are in /outputs/{job}.")

    async def test_files_of_a_job_that_has_none(self) -> None:
        body = await self.get(f"/download/{await self.run_one()}/x", 404)
        self.assertIn("left no files", body["details"])
        self.engine.runner = FakeRunner(hold=True)
        job = (await self.submit())["job_id"]
        body = await self.get(f"/download/{job}/x", 404)
        self.assertEqual(
            body["details"],
            f"The job is not over, so it has none yet: ask /status/{job}?wait=60 first.",
        )


class Nearest(unittest.TestCase):
    def test_the_same_name_elsewhere_comes_before_similar_ones(self) -> None:
        names = ["main.pyc", "src/main.py", "lib/main.py"]
        self.assertEqual(nearest("main.py", names), ["src/main.py", "lib/main.py"])
        self.assertEqual(nearest("x/mian.py", [*names, "x/main.py"])[0], "x/main.py")

    def test_the_nearest_of_many_is_found(self) -> None:
        names = [f"data/{number}.csv" for number in range(900)]
        self.assertEqual(nearest("mian.py", [*names, "main.py"]), ["main.py"])

    def test_nothing_is_near_to_what_is_like_nothing(self) -> None:
        self.assertEqual(nearest("zzz", ["main.py", "", "a" * 5000]), [])
        self.assertEqual(nearest("x" * 5000, ["main.py"]), [])
        self.assertEqual(nearest("", []), [])

    def test_it_takes_little_time_whatever_the_names_are(self) -> None:
        for names in (
            ["a" * 35 + f"{number:05}" for number in range(10_000)],
            ["a/" * 2000 + f"{number}" for number in range(10_000)],
            [f"{'ab' * 17}{number:05}" for number in range(10_000)],
        ):
            for asked in ("a" * 36 + "bcde", "ba" * 20, "a" * 100_000):
                began = time.thread_time()
                nearest(asked, names)
                self.assertLess(time.thread_time() - began, 0.1)
