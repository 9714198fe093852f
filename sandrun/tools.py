"""The tools that `sandrun mcp` serves, over AsyncClient. A program that fails is a normal result
with its exit code; an error is what kept us from running it.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import wraps
from typing import Annotated, Any, Literal, ParamSpec

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError
from mcp_types import CallToolResult, ContentBlock, TextContent, ToolAnnotations
from pydantic import Field

from sandrun import replies
from sandrun.client import AsyncClient, AsyncJob, Manifest
from sandrun.errors import SandrunError
from sandrun.progress import Call, Progress
from sandrun.result import Result, StreamName

P = ParamSpec("P")
_CANCEL_SECONDS = 5.0
_TOKENS = 10_000  # jobs that are remembered as ours
_MAX_LIMIT = 20_000
_RESOURCE_BYTES = 8 << 20

INSTRUCTIONS = (
    "Runs code in a fresh Linux sandbox: no network, nothing stays but the files that it writes, "
    "which are listed as outputs. Jobs and their outputs are forgotten some minutes after the end."
)
# What a language is called here, if the server knows it under another name.
_INTERPRETERS = {"py": "python3", "javascript": "node", "js": "node", "shell": "bash"}
JobId = Annotated[str, Field(description="From the tool that ran it")]
Text = dict[Literal["base64"], str]
Files = Annotated[
    dict[str, str | Text] | None,
    Field(description='More files, by path: text, or {"base64": "..."} for bytes'),
]


def build(tools: "Tools") -> MCPServer[Any]:
    """The server, ready to be run; its connections are closed at its end."""

    @asynccontextmanager
    async def until_the_end(_: MCPServer[Any]) -> AsyncIterator[None]:
        async with tools.client:
            yield

    server: MCPServer[Any] = MCPServer(
        "sandrun", instructions=INSTRUCTIONS, log_level="WARNING", lifespan=until_the_end
    )
    runs, reads = _annotations(), _annotations(read_only=True)
    server.add_tool(tools.run_code, annotations=runs)
    server.add_tool(tools.run_project, annotations=runs)
    server.add_tool(tools.get_output, annotations=reads)
    server.add_tool(tools.read_log, annotations=reads)
    server.add_tool(tools.cancel_job, annotations=_annotations(idempotent=True))
    server.add_tool(tools.execute_python, annotations=runs)
    server.add_tool(tools.execute_javascript, annotations=runs)
    server.add_tool(tools.execute_bash, annotations=runs)
    server.add_tool(tools.check_job_status, annotations=reads)
    server.add_tool(tools.get_job_logs, annotations=reads)
    server.resource(
        "sandrun://outputs/{job_id}/{+path}", name="output", mime_type="application/octet-stream",
        description="A file that a job wrote",
    )(tools.output)  # fmt: skip
    return server


def _annotations(read_only: bool = False, idempotent: bool = False) -> ToolAnnotations:
    return ToolAnnotations(
        read_only_hint=read_only, destructive_hint=False, idempotent_hint=idempotent or read_only,
        open_world_hint=False,
    )  # fmt: skip


def _told(
    prefix: str = "",
) -> Callable[[Callable[P, Awaitable[CallToolResult]]], Callable[P, Awaitable[CallToolResult]]]:
    """Our own errors become replies, which begin with `prefix`."""

    def decorate(
        tool: Callable[P, Awaitable[CallToolResult]],
    ) -> Callable[P, Awaitable[CallToolResult]]:
        @wraps(tool)
        async def called(*args: P.args, **kwargs: P.kwargs) -> CallToolResult:
            try:
                return await tool(*args, **kwargs)
            except SandrunError as error:
                return replies.error_reply(error, prefix)

        return called

    return decorate


class Tools:
    """Each method is a tool; its docstring and annotations are what an agent reads of it."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self._tokens: dict[str, str] = {}  # owner_tokens, which die with this process
        self.waited_for: dict[str, str] = {}  # those of jobs that a call waits for

    # ---- running

    @_told()
    async def run_code(
        self,
        call: Call,
        language: Annotated[
            str,
            Field(description="python, javascript, bash, sh, c, cpp, java, go, rust, ruby, perl, "
                  "php, lua or R: as far as the server has them"),
        ],
        code: str,
        files: Files = None,
        stdin: str = "",
        args: list[str] | None = None,
        timeout_s: Annotated[int | None, Field(description="Seconds, 1 to 300", ge=1)] = None,
    ) -> CallToolResult:  # fmt: skip
        """Run code in a fresh sandbox and get what it printed, its exit code and the files that it
        wrote. No network. 512 MB of memory, 300 s. Nothing is kept from one call to the next: give
        the files that it needs. Print what you want to see; write pictures to .png or .jpg files,
        which are shown. Python has the standard library, and numpy, pandas and matplotlib where
        the server has them."""
        asked: Manifest = {"args": args, "timeout": timeout_s}
        return await self._run(call, _contents(files), code, language, stdin, asked)

    @_told()
    async def run_project(
        self,
        call: Call,
        files: Annotated[
            dict[str, str | Text],
            Field(description='By path: text, or {"base64": "..."} for bytes'),
        ],
        manifest: Annotated[
            dict[str, Any] | None,
            Field(
                description="entrypoint (a path in files), interpreter, args, env, outputs "
                "(patterns), timeout (s), memory_mb, cpu_seconds; all optional"
            ),
        ] = None,
    ) -> CallToolResult:
        """Run a project of several files in a fresh sandbox, beginning at the manifest's entrypoint
        (else main.py and the like). Otherwise as run_code: no network, 512 MB, 300 s, and the files
        that it writes are its outputs."""
        asked = dict(manifest or {})
        stdin = asked.pop("stdin", "")
        # Others are no manifest's but our own arguments: `path` would send files of this machine.
        if unknown := asked.keys() - Manifest.__annotations__.keys():
            known = ", ".join(sorted({*Manifest.__annotations__, "stdin"}))
            raise SandrunError(f"The manifest has no {min(unknown)!r}. It may have {known}.")
        if not isinstance(stdin, str):
            raise SandrunError("The manifest's stdin is text.")
        if not files:
            raise SandrunError("There are no files to run.")
        return await self._run(call, _contents(files), None, None, stdin, asked)

    async def _run(
        self,
        call: Call,
        files: Mapping[str, bytes],
        code: str | None,
        language: str | None,
        stdin: str,
        asked: Mapping[str, Any],
    ) -> CallToolResult:
        job, result = await self._finish(call, files, code, language, stdin, asked)
        outputs = result.status.get("outputs")
        if outputs is None:  # there are many
            outputs = await job.outputs()
        pictures = {}
        for output in replies.shown_first(outputs):
            with suppress(SandrunError):  # it is listed all the same
                data = await job.download(output["path"])
                if kind := replies.picture_type(data):
                    pictures[output["path"]] = data, kind
        return replies.job_reply(result, outputs, pictures)

    async def _submit(
        self,
        files: Mapping[str, bytes],
        code: str | None,
        language: str | None,
        stdin: str,
        asked: Mapping[str, Any],
    ) -> AsyncJob:
        manifest: Any = dict(asked)
        if language is not None:
            manifest["interpreter"] = _INTERPRETERS.get(language.lower(), language)
        job = await self.client.submit(code, files=files, stdin=stdin or None, **manifest)
        while len(self._tokens) >= _TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[job.id] = job.owner_token or ""
        return job

    async def _finish(
        self,
        call: Call,
        files: Mapping[str, bytes],
        code: str | None,
        language: str | None,
        stdin: str,
        asked: Mapping[str, Any],
    ) -> tuple[AsyncJob, Result]:
        """Runs it to its end; whoever takes the call back takes the job along."""
        told = Progress(call)
        submitting = asyncio.create_task(self._submit(files, code, language, stdin, asked))
        try:
            job = await told.during(submitting)
            told.job = job.id
            self.waited_for[job.id] = job.owner_token or ""
            waiting = asyncio.create_task(_over(job, told))
            try:
                return job, await told.during(waiting)
            finally:
                waiting.cancel()
                del self.waited_for[job.id]
        except BaseException:
            with anyio.move_on_after(_CANCEL_SECONDS, shield=True), suppress(SandrunError):
                await (await submitting).cancel()
            raise

    # ---- looking at a job

    @_told()
    async def get_output(
        self,
        job_id: JobId,
        path: str,
        offset: Annotated[int, Field(description="Byte to begin at", ge=0)] = 0,
        max_bytes: Annotated[int, Field(ge=1, le=_MAX_LIMIT)] = replies.MAX_CHARACTERS,
    ) -> CallToolResult:
        """Read a file that a job wrote: text, or a PNG or JPEG as a picture. Of other files only
        what they are is told, and a link."""
        job = self.client.job(job_id)
        outputs = await job.outputs()
        found = next((output for output in outputs if output["path"] == path), None)
        if found is None:
            names = ", ".join(repr(output["path"]) for output in outputs[:20])
            raise SandrunError(f"The job has no output {path!a:.200}. It has {names or 'none'}.")
        if not offset and replies.may_be_shown(found):
            data = await job.download(path)
            if kind := replies.picture_type(data):
                content: list[ContentBlock] = [
                    TextContent(text=f"{path} ({kind}, {len(data):,} bytes)"),
                    replies.picture(data, kind),
                ]
                return CallToolResult(content=content)
        size = found["size_bytes"]
        data = await job.download(path, offset, max_bytes) if offset < size else b""
        text = replies.text_in(data, more=offset + len(data) < size)
        if text is None:
            told = f"{path} is no text: {found['mime_type']}, {size:,} bytes, sha256 "
            told += f"{found['sha256']}. From byte {offset:,}: {data[:32].hex(' ')}"
            content = [TextContent(text=told), replies.link(job_id, found)]
            return CallToolResult(content=content)
        end = offset + len(data)
        head = f"{path}: bytes {offset:,} to {end:,} of {size:,}"
        return replies.text_reply(f"{head}\n{text}", {
            "path": path, "offset": offset, "next_offset": end if end < size else None,
            "size_bytes": size, "text": text,
        })  # fmt: skip

    @_told()
    async def read_log(
        self,
        job_id: JobId,
        offset: Annotated[
            int, Field(description="Character to begin at; negative: from the end")
        ] = 0,
        limit: Annotated[int, Field(ge=1, le=_MAX_LIMIT)] = replies.MAX_CHARACTERS,
        stream: Literal["stdout", "stderr"] = "stdout",
    ) -> CallToolResult:
        """Read what a job printed, also while it runs: `limit` characters from `offset` on."""
        job = self.client.job(job_id)
        state = (await job.status())["status"]  # first: what is printed later is not missed
        text = (await job.log(stream)).decode("utf-8", "replace")
        start = min(offset, len(text)) if offset >= 0 else max(len(text) + offset, 0)
        part = text[start : start + limit]
        end = start + len(part)
        head = f"{stream}: characters {start:,} to {end:,} of {len(text):,}; the job is {state}"
        return replies.text_reply(f"{head}\n{part}", {
            "job_id": job_id, "status": state, "stream": stream, "offset": start,
            "next_offset": end if end < len(text) or state in ("queued", "running") else None,
            "total": len(text), "text": part,
        })  # fmt: skip

    @_told()
    async def cancel_job(self, job_id: JobId) -> CallToolResult:
        """End a job that this server started. What it has printed can still be read."""
        token = self._tokens.get(job_id)
        if token is None:
            raise SandrunError(
                "Only jobs that were started here since this server runs can be ended."
            )
        status = await self.client.job(job_id, token).cancel()
        was = "" if status["reason"] == "cancelled" else " It was over before."
        reason = f" ({status['reason']})" if status["reason"] else ""
        return replies.text_reply(
            f"Job {job_id}: {status['status']}{reason}.{was}",
            {"job_id": job_id, "status": status["status"], "reason": status["reason"]},
        )

    async def output(self, job_id: str, path: str) -> bytes:
        """The resource behind a link to an output."""
        try:
            job = self.client.job(job_id)
            sizes = {output["path"]: output["size_bytes"] for output in await job.outputs()}
            if sizes.get(path, 0) > _RESOURCE_BYTES:
                raise ResourceError(f"It has {sizes[path]:,} bytes: get_output reads parts of it.")
            return await job.download(path)
        except SandrunError as error:
            raise ResourceError(str(error)) from None

    # ---- the names and replies of the earlier MCP server

    @_told("Error: ")
    async def execute_python(self, call: Call, code: str, wait: bool = True) -> CallToolResult:
        """Run Python code in a sandbox without network: an earlier name, run_code can do more."""
        return await self._execute(call, "python3", code, wait)

    @_told("Error: ")
    async def execute_javascript(self, call: Call, code: str, wait: bool = True) -> CallToolResult:
        """Run JavaScript in Node in a sandbox without network: an earlier name, run_code can do
        more."""
        return await self._execute(call, "node", code, wait)

    @_told("Error: ")
    async def execute_bash(self, call: Call, script: str, wait: bool = True) -> CallToolResult:
        """Run a Bash script in a sandbox without network: an earlier name, run_code can do more."""
        return await self._execute(call, "bash", script, wait)

    async def _execute(self, call: Call, language: str, code: str, wait: bool) -> CallToolResult:
        if not wait:
            job = await self._submit({}, code, language, "", {})
            told = f"Job submitted: {job.id}\nUse check_job_status to monitor progress."
            return replies.text_reply(told)
        _, result = await self._finish(call, {}, code, language, "", {})
        stdout, stderr = replies.share(result)
        text = f"Status: {result.status['status']}\n\n"
        text += f"Output:\n{stdout}\n" if stdout else ""
        text += f"\nErrors:\n{stderr}\n" if stderr else ""
        if language != "bash":
            used = result.usage
            text += (
                f"\nMetrics: CPU={used.cpu_seconds:.3f}s, Memory={used.memory_peak_bytes >> 20}MB"
            )
        return replies.text_reply(text)

    @_told("Error: ")
    async def check_job_status(self, job_id: JobId) -> CallToolResult:
        """Whether a job waits, runs or is over, and what it used."""
        status = await self.client.job(job_id).status()
        used = status["metrics"]
        return replies.text_reply(
            f"Job {job_id}:\nStatus: {status['status']}\n"
            f"Queue position: {status['queue_position']}\n"
            f"CPU: {used['cpu_seconds']:.3f}s\nMemory: {used['memory_mb']}MB\n"
        )

    @_told("Error: ")
    async def get_job_logs(self, job_id: JobId) -> CallToolResult:
        """What a job printed by now: head and tail. read_log reads all of it."""
        job = self.client.job(job_id)
        streams: tuple[StreamName, ...] = ("stdout", "stderr")
        stdout, stderr = [
            replies.cut((await job.log(stream)).decode("utf-8", "replace"), 3800, job_id, stream)
            for stream in streams
        ]
        text = f"Logs for job {job_id}:\n\n"
        text += f"STDOUT:\n{stdout}\n" if stdout else ""
        text += f"\nSTDERR:\n{stderr}\n" if stderr else ""
        return replies.text_reply(text)


async def _over(job: AsyncJob, told: Progress) -> Result:
    """Its Result, without what a flood has printed beyond what the server keeps."""
    result = await job.wait(download=False, log=False, on_output=told.output, on_event=told.event)
    stdout, stderr = await job.log("stdout"), await job.log("stderr")
    return replace(result, stdout_bytes=stdout, stderr_bytes=stderr)


def _contents(files: Mapping[str, str | Text] | None) -> dict[str, bytes]:
    contents = {}
    for path, content in (files or {}).items():
        if isinstance(content, str):
            contents[path] = content.encode()
            continue
        try:
            contents[path] = base64.b64decode(content["base64"], validate=True)
        except (KeyError, binascii.Error, ValueError):
            raise SandrunError(f"The base64 of {path!a:.200} is none.") from None
    return contents
