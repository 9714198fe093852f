"""Facts about the repository as a whole: who imports whom, what is never here, what the commands
promise before they do anything.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

import jobs
import sandrun

ROOT = Path(__file__).resolve().parent.parent
LOCKS = (ROOT / "requirements.lock", ROOT / "requirements-dev.lock")


def files() -> Iterator[Path]:
    """Every file that a person wrote."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name in (".ci", ".github") or not name.startswith((".", "__pycache__"))
        ]
        yield from (Path(folder, name) for name in names)


class Imports(unittest.TestCase):
    def test_imports_go_one_way(self) -> None:
        lint = Path(sys.executable).with_name("lint-imports")
        done = subprocess.run(
            [lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_what_is_forked_for_every_job_loads_nothing_large(self) -> None:
        # import-linter reads our code only; this also sees what the standard library brings along
        large = {"asyncio", "dataclasses", "tomllib", "django"}
        done = subprocess.run(
            [sys.executable, "-I", "-c", "import sandbox.launcher, sys; print(*sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertFalse(large.intersection(done.stdout.split()))


class Versions(unittest.TestCase):
    def test_the_server_and_the_client_have_one_version(self) -> None:
        self.assertEqual(jobs.VERSION, sandrun.__version__)


class NoDatabase(unittest.TestCase):
    def test_no_database_is_configured(self) -> None:
        # Django itself puts its dummy, which refuses every use, into an empty DATABASES
        engines = {database.get("ENGINE") for database in settings.DATABASES.values()}
        self.assertLessEqual(engines, {"django.db.backends.dummy"})

    def test_no_room_has_models(self) -> None:
        self.assertEqual([path for path in files() if path.stem in ("models", "migrations")], [])


class Locks(unittest.TestCase):
    def test_locks_name_versions_and_hashes_but_no_place(self) -> None:
        for lock in LOCKS:
            with self.subTest(lock.name):
                self.assertNotRegex(lock.read_text(), r"(?m)[/\\]\S|file:|^\s*-(?!-hash=sha256:)")

    def test_every_dependency_is_locked(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        ours, extras = project["project"], project["project"]["optional-dependencies"]
        served = ours["dependencies"] + extras["server"]
        tested = project["dependency-groups"]["dev"] + extras["mcp"] + extras["completion"]
        for lock, wanted in zip(LOCKS, (served, tested), strict=True):
            locked = set(re.findall(r"(?m)^([a-z0-9-]+)==", lock.read_text()))
            names = {re.split(r"[^\w-]", name)[0].lower() for name in wanted}
            self.assertLessEqual(names, locked)

    def test_both_locks_agree(self) -> None:
        pins = [dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", lock.read_text())) for lock in LOCKS]
        shared = pins[0].keys() & pins[1].keys()
        self.assertEqual([name for name in shared if pins[0][name] != pins[1][name]], [])


class Places(unittest.TestCase):
    def test_no_file_names_the_place_where_it_was_written(self) -> None:
        place = re.compile(rb"(?<![\w/.-])%s(?![\w-])" % re.escape(bytes(ROOT)))
        if ROOT.parent == Path("/"):  # /app, /sandrun: such a name may stand in the documents
            self.skipTest(f"{ROOT} says nothing about a machine")
        self.assertEqual([path for path in files() if place.search(path.read_bytes())], [])

    def test_every_command_that_the_documents_name_exists(self) -> None:
        for document in (path for path in files() if path.suffix == ".md"):
            for name in re.findall(r"(?<![\w/])(script/\w[\w-]*)", document.read_text()):
                with self.subTest(f"{document.relative_to(ROOT)}: {name}"):
                    self.assertTrue(os.access(ROOT / name, os.X_OK))


class Commands(unittest.TestCase):
    """script/server and script/setup beside stand-ins that only tell that they were reached."""

    def setUp(self) -> None:
        self.place = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="a place ")))
        (self.place / "script").mkdir()
        shutil.copy(ROOT / "script/server", self.place / "script")
        setup = self.place / "script/setup"
        setup.write_text('#!/bin/sh\ntouch "$(dirname "$0")/../reached"\n')
        setup.chmod(0o755)
        python = self.place / ".venv/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        python.chmod(0o755)

    def server(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.place / "script/server", *args],
            cwd="/",
            env={"PATH": os.environ["PATH"], "SANDRUN_SCOPE": "1"},
            capture_output=True,
            text=True,
        )

    def test_server_refuses_what_it_does_not_know_before_it_does_anything(self) -> None:
        for args in (
            ["--prot", "80"],
            ["80"],
            [""],
            ["--port"],
            ["--port", "http"],
            ["--host="],
            ["--no-quotas=yes"],
            ["--port", "80", "--"],
        ):
            with self.subTest(args):
                done = self.server(*args)
                self.assertEqual(done.returncode, 2)
                self.assertRegex(done.stderr, r"^script/server: .+\n$")
                self.assertEqual(done.stdout, "")
                self.assertFalse((self.place / "reached").exists())

    def test_server_help_does_nothing_else(self) -> None:
        done = self.server("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("--no-quotas", done.stdout)
        self.assertFalse((self.place / "reached").exists())

    @unittest.skipUnless(os.geteuid() == 0, "script/server needs root")
    def test_server_becomes_the_keeper_with_absolute_paths(self) -> None:
        done = self.server("--port=80", "--host", "::", "--no-quotas")
        self.assertTrue((self.place / "reached").exists())
        self.assertEqual(
            done.stdout.splitlines(),
            ["-I", "-m", "sandbox.keeper", "--", f"{self.place}/.venv/bin/python", "-I"]
            + [f"{self.place}/manage.py", "serve", "--host", "::", "--port", "80", "--no-quotas"],
        )

    def test_setup_refuses_what_it_does_not_know(self) -> None:
        done = subprocess.run([ROOT / "script/setup", "--test"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r"^script/setup: .+\n$")


class Tables(unittest.TestCase):
    """Tables that name code and tests are no better than their last check."""

    def test_every_wall_that_a_mutation_takes_out_stands_where_the_table_says(self) -> None:
        from tests.attacks.walls import WALLS, stale

        self.assertEqual(stale(WALLS), [])
        for file, _, name in {test.partition("::") for wall in WALLS for test in wall.tests}:
            text = (ROOT / "tests/attacks" / file).read_text()
            self.assertIn(f"def {name.partition('[')[0]}(", text)
