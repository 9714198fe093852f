"""README.md is true: its commands are run as they stand, and it is short. The settings that
docs/settings.md explains are all there are.
"""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from jobs.conf import Config
from tests.journeys.server import REPOSITORY, Server

README = (REPOSITORY / "README.md").read_text()
SETTINGS = REPOSITORY / "docs/settings.md"
COMMANDS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
STRICT = 'set -eu\ncurl() { command curl -sS --fail "$@"; }\nsudo() { "$@"; }\n'


def test_the_commands_work_one_after_the_other(tmp_path: Path) -> None:
    plain, *commands = [block for block in COMMANDS if "script/test" not in block]
    [signing] = [block for block in commands if "script/server" in block]
    commands.remove(signing)
    generate, start = signing.splitlines()
    assert (
        plain.strip() == "sudo script/server"
        and start == f"{plain.strip()} --worker-key worker.pem"
    )
    generate = generate.replace("script/server", f"'{REPOSITORY}'/script/server")
    subprocess.run(["bash", "-c", STRICT + generate], cwd=tmp_path, check=True)
    server = Server("--worker-key", str(tmp_path / "worker.pem"))
    env = {**os.environ, "SANDRUN_SERVER": f"http://localhost:{server.port}"}
    try:
        [program] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        words = [sys.executable, "-Ic", program]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=env)
        assert done.stdout == "42\n\n", done
        script = "".join(commands).replace("localhost:8443", f"localhost:{server.port}")
        script = script.replace(".venv/", f"'{REPOSITORY}'/.venv/")
        done = subprocess.run(
            ["bash", "-c", STRICT + script],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        assert server.end() == 0
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.txt").read_text() == "a b"
    assert zipfile.ZipFile(tmp_path / "all.zip").namelist() == ["results/out.txt"]
    assert done.stdout.startswith("42\n42\n"), "by the command and by curl"
    assert '"results/out.txt"' in done.stdout
    assert '"deleted":true' in done.stdout
    assert '"reason": "exit"' in done.stdout, "the command without a server"
    assert "The signature holds" in done.stdout


def test_it_is_read_in_five_minutes() -> None:
    assert len(README.split()) <= 900


def test_every_setting_is_explained() -> None:
    told = set(re.findall(r"`SANDRUN_([A-Z_]+)`", SETTINGS.read_text()))
    settings = {name.upper() for name in Config.__struct_fields__}
    assert told == settings | {"ALLOWED_HOSTS", "WORKER_KEY"}


def test_every_file_that_is_linked_exists() -> None:
    for link in re.findall(r"\]\(([^)#]+)", README):
        assert (REPOSITORY / link).exists(), link
