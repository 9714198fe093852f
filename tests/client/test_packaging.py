"""`pip install .`: a clean environment of somebody without rights, where there is no compiler, has
a client that works; with [server] it can serve."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import sandrun
from tests.journeys.server import REPOSITORY, Server

BASE = Path(getattr(sys, "_base_executable", sys.executable)).resolve()


class Home:
    """A folder of nobody's, with a copy of the repository as it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = folder / "source"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, check=True).stdout
        for name in os.fsdecode(names).split("\0")[:-1]:
            if (REPOSITORY / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / name, source / name)
        subprocess.run(["chown", "-R", "65534:65534", folder], check=True)
        self.python = folder / "env/bin/python"
        self.run(BASE, "-Im", "venv", folder / "env")

    def run(self, *command: str | Path, **env: str) -> str:
        """What it prints, as nobody, who has a home and no compiler."""
        nobody = [
            "/usr/bin/setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ]
        words = [*nobody, *map(str, command)]
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=300, cwd=self.folder,
            env={**kept, "PATH": "/nothing", "HOME": str(self.folder), "CC": "/nothing/cc", **env},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pip(self, *words: str) -> str:
        return self.run(self.python, "-Im", "pip", "--disable-pip-version-check", *words)


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be entered by root only
        yield Home(Path(folder))


def test_the_client_installs_without_root_and_compiler_and_works(
    home: Home, server: Server
) -> None:
    home.pip("install", "--quiet", f"{home.folder}/source")
    installed = {line.split("==")[0] for line in home.pip("freeze", "--all").splitlines()}
    ours = {line.split(" @")[0] for line in installed if line.startswith("sandrun-server")}
    assert ours and not {"Django", "channels", "daphne", "mcp"} & installed, installed
    url = f"http://127.0.0.1:{server.port}"
    code = "import sandrun; print(sandrun.run('print(6 * 7)').stdout)"
    assert home.run(home.python, "-Ic", code, SANDRUN_SERVER=url) == "42\n\n"
    assert "verify" in home.run(home.folder / "env/bin/sandrun", "--help")


def test_what_is_installed_can_serve(home: Home, tmp_path: Path) -> None:
    """With [server], that is with what this environment has beside the repository: every module,
    page and table of the server's is in what pip installs."""
    subprocess.run([BASE, "-Im", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env/bin/python"
    home.pip("wheel", "--quiet", "--no-deps", "-w", f"{home.folder}/w", f"{home.folder}/source")
    (wheel,) = (home.folder / "w").iterdir()
    pip = [python, "-Im", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    site = next((tmp_path / "env/lib").glob("python3*/site-packages"))
    # Copied, not named in a .pth: a server covers /tmp, where this repository may lie itself.
    others = shutil.ignore_patterns("*.pth", "pip*", "mypy*", "ruff*")
    shutil.copytree(sysconfig.get_path("purelib"), site, ignore=others, dirs_exist_ok=True)
    process = subprocess.Popen(
        [python, "-Im", "django", "serve", "--settings=sandrun_site.settings", "--port", "0"],
        cwd="/", stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        banner = iter(process.stdout)
        ready = next(line for line in banner if "Sandrun is ready on " in line)
        with sandrun.Client(ready.split()[-1]) as client:
            assert client.run("import sandbox").stderr.endswith("No module named 'sandbox'\n")
            assert client.run("print(6 * 7)").stdout == "42\n"
        maps = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert "sandbox.keeper" in maps and str(REPOSITORY) not in maps
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
