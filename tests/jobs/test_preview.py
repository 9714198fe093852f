"""HTML outputs that are shown: what may be, as what, and to whom."""

from jobs.api.preview import PREVIEW_BYTES
from jobs.conf import Config
from tests.jobs.test_api import ApiCase


class Previews(ApiCase):
    async def made(self, files: dict[str, bytes], **manifest: object) -> str:
        self.runner.files = files
        return await self.run_one(manifest)

    async def test_html_comes_as_html_into_a_sandbox(self) -> None:
        job = await self.made({"a/1.HTM": b"<p>hi"})
        response = await self.client.get(f"/preview/{job}/a/1.HTM")
        self.assertEqual(b"".join([piece async for piece in response]), b"<p>hi")
        self.assertEqual(response["Content-Type"], "text/html; charset=utf-8")
        self.assertEqual(response["Content-Length"], "5")
        self.assertEqual(response["Cache-Control"], "no-store")
        self.assertEqual(response["X-Content-Type-Options"], "nosniff")
        self.assertEqual(response["X-Frame-Options"], "SAMEORIGIN")
        policy = response["Content-Security-Policy"].split("; ")
        self.assertEqual(policy[0], "sandbox allow-scripts")
        self.assertEqual(policy[-1], "frame-ancestors 'self'")
        self.assertIn("default-src 'none'", policy)

    async def test_other_files_are_told_where_they_are(self) -> None:
        names = ["x.svg", "x.xhtml", "x.js", "html", "x.html.txt", "x.html\n"]
        job = await self.made(dict.fromkeys(names, b"<script>"))
        for name in ("x.svg", "x.xhtml", "x.js", "html", "x.html.txt", "x.html%0A"):
            body = await self.get(f"/preview/{job}/{name}", 404)
            self.assertEqual(body["reason"], "unknown_file")
            self.assertIn(f"/download/{job}/{name}", body["details"])
        self.assertEqual((await self.get(f"/preview/{job}/none", 404))["reason"], "unknown_file")
        self.assertEqual((await self.get("/preview/none/x.html", 404))["reason"], "unknown_job")

    async def test_more_than_can_be_shown_is_told_where_it_is(self) -> None:
        job = await self.made({"x.html": bytes(PREVIEW_BYTES + 1), "y.html": bytes(PREVIEW_BYTES)})
        body = await self.get(f"/preview/{job}/x.html", 413)
        self.assertEqual(body["reason"], "too_large")
        self.assertIn(f"/download/{job}/x.html", body["details"])
        self.assertEqual((await self.client.get(f"/preview/{job}/y.html")).status_code, 200)

    async def test_only_a_frame_shows_it(self) -> None:
        job = await self.made({"x.html": b""})
        for place in ("document", "script", "style", "image", "object", "embed", "empty", "worker"):
            headers = {"sec-fetch-dest": place}
            body = await self.get(f"/preview/{job}/x.html", 400, **headers)
            self.assertIn(f"/download/{job}/x.html", body["details"], place)
        response = await self.client.get(
            f"/preview/{job}/x.html", headers={"sec-fetch-dest": "iframe"}
        )
        self.assertEqual(response.status_code, 200)

    async def test_whoever_has_been_shown_all_of_it_has_read_it(self) -> None:
        job = await self.made({"x.html": b"<p>"}, burn_after_read=True)
        await self.get(f"/status/{job}?wait=1")  # the log
        await self.client.head(f"/preview/{job}/x.html")
        self.assertIn(job, self.engine.store._jobs)
        response = await self.client.get(f"/preview/{job}/x.html")
        _ = [piece async for piece in response]
        await self.get(f"/status/{job}", 404)


class Invited(Previews):
    config = Config(allow_origin=("https://good.example", "http://localhost:3000"))

    async def test_html_comes_as_html_into_a_sandbox(self) -> None:
        job = await self.made({"x.html": b""})
        policy = (await self.client.get(f"/preview/{job}/x.html"))["Content-Security-Policy"]
        ancestors = "; frame-ancestors 'self' https://good.example http://localhost:3000"
        self.assertTrue(policy.endswith(ancestors), policy)
