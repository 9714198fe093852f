"""Settings: read once, refused when they make no sense, and never found elsewhere."""

import socket
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

from django.conf import settings
from django.core.checks import run_checks

from jobs import conf
from jobs.checks import check_settings
from sandrun_site.management.commands import serve

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"


class Settings(unittest.TestCase):
    def test_defaults_are_what_is_promised(self) -> None:
        config = conf.read({})
        self.assertEqual((config.timeout_seconds, config.memory_mb), (300, 512))
        self.assertEqual((config.ttl_seconds, config.log_bytes), (300, 10 << 20))
        self.assertEqual(config.upload_bytes, 100 << 20)
        quotas = (config.cpu_seconds_per_minute, config.concurrent_jobs, config.jobs_per_hour)
        self.assertEqual((*quotas, config.quotas), (10.0, 2, 20, True))

    def test_values_come_from_the_environment(self) -> None:
        found = conf.from_environ({"SANDRUN_SLOTS": "3", "SANDRUN_LAUNCHER_FD": "5", "SLOTS": "9"})
        self.assertEqual(found, {"slots": "3"})
        self.assertEqual(conf.read(found).slots, 3)

    def test_lists_have_commas(self) -> None:
        found = conf.from_environ(
            {"SANDRUN_TRUST_PROXY": "10.0.0.0/8, ::1", "SANDRUN_ALLOW_ORIGIN": "https://a.example,"}
        )
        config = conf.read(found)
        self.assertEqual(config.trust_proxy, ("10.0.0.0/8", "::1"))
        self.assertEqual(config.allow_origin, ("https://a.example",))

    def test_values_that_make_no_sense(self) -> None:
        for name, value in (
            ("slots", 0),
            ("slots", -1),
            ("slots", "many"),
            ("slots", 10**9),
            ("slots", None),
            ("ttl_seconds", "1e9"),
            ("sweep_seconds", "nan"),
            ("sweep_seconds", "inf"),
            ("submit_rate", "0/m"),
            ("submit_rate", "fast"),
            ("submit_rate", "1/0m"),
            ("slot", 1),
            ("trust_proxy", ["nonsense"]),
            ("trust_proxy", ["10.0.0.1/8"]),
            ("allow_origin", ["*"]),
            ("allow_origin", ["null"]),
            ("allow_origin", ["https://name/"]),
            ("allow_origin", ["name"]),
            ("metrics", "9100"),
            ("metrics", "http://127.0.0.1:9100"),
            ("metrics", "::1:9100"),
            ("running_memory_mb", 256),
            ("concurrent_jobs", 0),
            ("cpu_seconds_per_minute", 0),
        ):
            with self.subTest(name=name, value=value), self.assertRaises(ValueError):
                conf.read({name: value})

    def test_checks_find_them(self) -> None:
        self.assertEqual(
            [error for error in run_checks(tags=["sandrun"]) if not error.is_silenced()], []
        )
        before = settings.SANDRUN
        settings.SANDRUN = {"slots": 0}
        try:
            self.assertEqual([error.id for error in check_settings(None)], ["sandrun.E001"])
        finally:
            settings.SANDRUN = before


class Commands(unittest.TestCase):
    def run_command(self, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", str(MANAGE), *args],
            cwd="/",
            env=environ,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def test_serve_says_in_one_sentence_what_it_needs(self) -> None:
        for command in (["serve"], ["runserver", "127.0.0.1:0"]):
            for launcher in ("x", "99", "1"):
                done = self.run_command(*command, SANDRUN_LAUNCHER_FD=launcher, TMPDIR="/dev/shm")
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertRegex(done.stderr, r"\Asandrun: [^\n]+LAUNCHER_FD[^\n]+\n\Z")

    def test_serve_keeps_nothing_on_a_disk(self) -> None:
        done = self.run_command("serve", SANDRUN_LAUNCHER_FD="99", TMPDIR=str(MANAGE.parent))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("is on a disk; TMPDIR must be a tmpfs", done.stderr)

    def test_serve_refuses_settings_that_make_no_sense_in_a_sentence(self) -> None:
        for options, word in (
            (["--trust-proxy", "10.0.0.1/8"], "has host bits set"),
            (["--allow-origin", "https://x/path"], "is not like https://name"),
        ):
            done = self.run_command("serve", *options, SANDRUN_LAUNCHER_FD="99")
            self.assertEqual((done.returncode, done.stdout), (1, ""), word)
            self.assertRegex(done.stderr, r"\Asandrun: SANDRUN setting: [^\n]+\n\Z")
            self.assertIn(word, done.stderr)

    def test_by_hand_it_becomes_the_keeper_or_says_that_it_needs_root(self) -> None:
        with (
            mock.patch.object(serve.os, "geteuid", return_value=0),
            mock.patch.object(serve.os, "execv", side_effect=SystemExit) as execv,
            mock.patch.object(serve.sys, "argv", ["manage.py", "serve", "--port", "0"]),
            self.assertRaises(SystemExit),
        ):
            serve._become_keeper()
        python = sys.executable
        self.assertEqual(
            execv.call_args.args,
            (
                python,
                [python, "-I", "-m", "sandbox.keeper", "--", python, "-I", "-m", "django"]
                + ["serve", "--port", "0", "--settings=sandrun_site.settings"],
            ),
        )
        with (
            mock.patch.object(serve.os, "geteuid", return_value=1000),
            self.assertRaisesRegex(SystemExit, "sandrun: isolating jobs needs root"),
        ):
            serve._become_keeper()

    def test_a_port_that_is_taken_is_said_in_a_sentence(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            self.assertRaisesRegex(SystemExit, "Address already in use"),
        ):
            serve._listen("127.0.0.1", taken.getsockname()[1])
        for host, port in (("127.0.0.1", 70_000), ("192.0.2.1", 0), ("no such host", 0)):
            with self.assertRaisesRegex(SystemExit, "sandrun: cannot listen on"):
                serve._listen(host, port)

    def test_debug_cannot_be_turned_on_from_outside(self) -> None:
        code = (
            "import sys; sys.path[:0] = sys.argv[1:]; "
            "from sandrun_site import settings as s; print(s.DEBUG, s.DATABASES)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(MANAGE.parent)],
            env={"DEBUG": "1", "DJANGO_DEBUG": "1", "SANDRUN_DEBUG": "1"},
            capture_output=True,
            text=True,
        )
        self.assertEqual((done.stdout, done.stderr), ("False {}\n", ""))
