#!/usr/bin/env python3
"""What the Python package can do, one step after the other. Runs 8 jobs, never two at once:

SANDRUN_SERVER=http://localhost:8443 integrations/examples/quick_tour.py
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import sandrun

print("== Code in, a value out")
result = sandrun.run("print(6 * 7)")
print(result.stdout, result.ok, result.exit_code, f"{result.usage.wall_seconds:.2f} s")
assert result.stdout == "42\n"

with sandrun.Client(patience=60) as client:  # waits where this client is at its limit
    print("== A program that fails is a result; check=True makes it an error")
    result = client.run("import sys; sys.exit('no such day')")
    print(result.reason, result.exit_code, result.stderr.strip())
    try:
        client.run("1 / 0", check=True)
    except sandrun.JobFailed as error:
        print(f"JobFailed: {error}")
        assert error.result.exit_code == 1

    print("== Files, arguments and stdin in, files out")
    result = client.run(
        "import sys, pathlib\n"
        "words = pathlib.Path('words.txt').read_text().split() + sys.stdin.read().split()\n"
        "pathlib.Path('count.csv').write_text(f'{sys.argv[1]},{len(words)}')",
        files={"words.txt": "one two three"},
        stdin="four five",
        args=["words"],
        outputs=["*.csv"],
    )
    output = result.outputs["count.csv"]
    print(output.text(), output.size, output.sha256[:16])
    assert output.text() == "words,5"

    print("== A folder; what .gitignore and .sandrunignore name stays here, and secrets do")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "main.py").write_text("import helper; print(helper.NAME)")
        Path(folder, "helper.py").write_text("NAME = 'a module of the folder'")
        result = client.run(path=folder, timeout=20, memory_mb=128)
        print(result.stdout, end="")

    print("== Lines, as they are printed")
    slow = "import time\nfor n in range(3): print('line', n, flush=True); time.sleep(0.2)"
    job = client.submit(slow)
    for line in job.logs():
        print(f"{line.time:5.2f} s  {line.stream}: {line.text}")

    print("== A job that is no longer wanted")
    with client.submit("while True: pass") as job:  # leaving ends it and has it forgotten
        print(job.id.startswith("job-"), job.status()["status"] in ("queued", "running"))
    try:
        job.status()
    except sandrun.JobNotFound as error:
        print(f"JobNotFound: {error}")
    else:
        sys.exit("it is still there")


async def both() -> list[str]:
    """Two at once, as many as a client may have."""
    async with sandrun.AsyncClient(patience=60) as client:
        results = await asyncio.gather(client.run("print('a')"), client.run("print('b')"))
    return [result.stdout.strip() for result in results]


print("== And with asyncio")
print(*asyncio.run(both()))
print("== All as it should be")
