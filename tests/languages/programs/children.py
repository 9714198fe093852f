"""Children: subprocess and asyncio's, with pipes, signals, time-outs and a local socket."""

import asyncio
import os
import signal
import subprocess
import sys


async def piped() -> bytes:
    child = await asyncio.create_subprocess_exec(
        "tr", "a-z", "A-Z", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    return (await child.communicate(b"through asyncio"))[0]


async def together() -> list[int]:
    shells = [await asyncio.create_subprocess_shell(f"exit {n}") for n in range(4)]
    return [await shell.wait() for shell in shells]


async def killed() -> int:
    child = await asyncio.create_subprocess_exec("sleep", "99")
    try:
        await asyncio.wait_for(child.wait(), 0.05)
    except TimeoutError:
        child.terminate()
    return await child.wait()


async def served() -> bytes:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, "/tmp/socket"):
        reader, writer = await asyncio.open_unix_connection("/tmp/socket")
        writer.write(b"over a local socket\n")
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
    return line


async def signalled() -> int:
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.set_result, 15)
    os.kill(os.getpid(), signal.SIGTERM)
    return await asyncio.wait_for(heard, 5)


async def main() -> None:
    print(await piped(), await together(), await killed(), await served(), await signalled())
    print(await asyncio.to_thread(os.getppid) == os.getppid())


asyncio.run(main())
again = [sys.executable, "-c", "import sys; print(sys.stdin.read()[::-1]); sys.exit(3)"]
done = subprocess.run(again, input="desrever", text=True, capture_output=True)
print(done.stdout.strip(), done.returncode, subprocess.getoutput("echo one; echo two | wc -l"))
try:
    subprocess.run(["sleep", "99"], timeout=0.05)
except subprocess.TimeoutExpired:
    print("timed out")
child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], os.environ)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
