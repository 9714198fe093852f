"""What a manifest may say, and that nothing else gets through, is slow, or fails otherwise."""

import contextlib
import gc
import json
import time
import unittest
from typing import Any

from jobs import manifest
from jobs.errors import InvalidManifest
from jobs.manifest import Bounds, Manifest
from sandbox import runtimes

RUNTIMES = runtimes.load()


def settle(asked: Any, *paths: str, bounds: Bounds | None = None) -> Manifest:
    raw = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    return manifest.read(raw).settle(paths or ("main.py",), RUNTIMES, bounds or Bounds())


class Accepted(unittest.TestCase):
    def test_everything_that_can_be_asked(self) -> None:
        found = settle(
            {
                "entrypoint": "./main.py",
                "interpreter": "python",
                "args": ["--n", "", "a|b", "two\nlines", "é"],
                "env": {"A_1": "x=y"},
                "stdin": "5\n",
                "stdin_live": True,
                "outputs": ["*.png", "results/", "./a/**/b?.[ch]"],
                "timeout": 1,
                "memory_mb": 16,
                "cpu_seconds": 0.5,
            }
        )
        self.assertEqual(found.entrypoint, "main.py")
        self.assertEqual(found.interpreter, "python3")
        self.assertEqual(found.args, ("--n", "", "a|b", "two\nlines", "é"))
        self.assertEqual(found.env, {"A_1": "x=y"})
        self.assertEqual((found.stdin, found.stdin_live), ("5\n", True))
        self.assertEqual(found.outputs, ("*.png", "results/", "a/**/b?.[ch]"))
        self.assertEqual((found.timeout, found.memory_mb, found.cpu_seconds), (1, 16, 0.5))
        self.assertEqual(found.warnings, ())

    def test_nothing_asked_means_the_defaults(self) -> None:
        found = settle({})
        self.assertEqual((found.entrypoint, found.interpreter), ("main.py", "python3"))
        self.assertEqual((found.timeout, found.memory_mb, found.cpu_seconds), (300, 512, 0.0))
        self.assertEqual((found.args, found.env, found.stdin, found.outputs), ((), {}, "", ()))
        self.assertIs(found.stdin_live, False)

    def test_defaults_do_not_exceed_a_smaller_server(self) -> None:
        found = settle({}, bounds=Bounds(timeout_seconds=10, memory_mb=64))
        self.assertEqual((found.timeout, found.memory_mb), (10, 64))

    def test_interpreter_is_inferred_from_the_extension(self) -> None:
        for path, name in {
            "a.py": "python3",
            "a.js": "node",
            "x/a.sh": "bash",
            "a.PY": "python3",
            "m.c": "c",
            "m.cc": "cpp",
            "a.pl": "perl",
        }.items():
            with self.subTest(path):
                self.assertEqual(settle({"entrypoint": path}, path, "b").interpreter, name)

    def test_entrypoint_is_found_by_its_usual_name(self) -> None:
        for paths, found in (
            (("index.js", "util.js"), "index.js"),
            (("run.sh", "data"), "run.sh"),
            (("run.sh", "index.js", "main.py"), "main.py"),
            (("hello.py",), "hello.py"),
        ):
            with self.subTest(paths):
                self.assertEqual(settle({}, *paths).entrypoint, found)
                self.assertEqual(settle({"entrypoint": ""}, *paths).entrypoint, found)
        self.assertEqual(
            settle({"interpreter": "node"}, "main.py", "index.js").entrypoint, "index.js"
        )

    def test_what_old_clients_send_and_nobody_misses(self) -> None:
        found = settle({"environment": "", "requirements": "", "gpu": {"required": False}})
        self.assertEqual(len(found.warnings), 1)
        self.assertIn("gpu is ignored", found.warnings[0])
        self.assertEqual(settle({"environment": None}).warnings, ())

    def test_an_environment_names_a_runtime(self) -> None:
        for asked in (
            {"environment": "perl"},
            {"environment": "perl", "interpreter": "perl"},
            {"environment": "default", "interpreter": "perl"},
        ):
            self.assertEqual(settle(asked).interpreter, "perl")
        self.assertEqual(settle({"environment": "python"}).environment, "python")


class Below(unittest.TestCase):
    """The manifest of the form over the job.json of the upload."""

    def test_what_the_form_does_not_say_is_in_job_json(self) -> None:
        below = b'{"entrypoint": "go.py", "timeout": 9, "args": ["x"]}'
        for raw, timeout in ((None, 9), (b"{}", 9), (b'{"entrypoint": "", "timeout": 5}', 5)):
            asked = manifest.read(raw, below)
            self.assertEqual(asked.entrypoint, "go.py")
            self.assertEqual((asked.timeout, asked.args), (timeout, ["x"]))

    def test_beside_a_form_it_may_be_any_file(self) -> None:
        for below in (b"{", b"[]", b'{"name": "my-project"}', b"\xff"):
            self.assertEqual(manifest.read(b'{"timeout": 5}', below).timeout, 5)
            with self.assertRaises(InvalidManifest):
                manifest.read(None, below)


class Refused(unittest.TestCase):
    def test_unknown_keys_with_a_suggestion(self) -> None:
        for key, hint in (
            ("timout", "Did you mean timeout?"),
            ("entry_point", "Did you mean entrypoint?"),
            ("k" * 500, "Known are: entrypoint"),
        ):
            error = self.refuse({key: 3})
            self.assertIn("unknown key", error.sentence)
            self.assertIn(hint, error.details)

    def test_what_is_not_offered_yet(self) -> None:
        for asked in (
            {"requirements": "r.txt"},
            {"requirements": ["numpy"]},
            {"gpu": {"required": True}},
            {"gpu": True},
        ):
            self.assertIn("is not offered", self.refuse(asked).sentence)

    def test_environments_that_nobody_knows_or_that_contradict(self) -> None:
        for name in ("ml-basic", "../../x", "a;id", "$(id)", "x" * 10_000, "Python3", "python3 "):
            self.assertIn("unknown environment", self.refuse({"environment": name}).sentence)
        error = self.refuse({"environment": "perl", "interpreter": "python3"})
        self.assertIn("runs perl, and interpreter says python3", error.sentence)

    def refuse(self, asked: Any, *paths: str) -> InvalidManifest:
        began = time.monotonic()
        with self.assertRaises(InvalidManifest) as caught:
            settle(asked, *paths)
        self.assertLess(time.monotonic() - began, 0.5)
        error = caught.exception
        self.assertLess(len(error.sentence) + len(error.details), 500)
        (error.sentence + error.details).encode()  # can be sent
        self.assertNotIn("\n", error.sentence)
        return error

    def test_bytes_that_are_no_json_object(self) -> None:
        for raw in (
            b"",
            b"{",
            b"[]",
            b'"x"',
            b"true",
            b"null",
            b"{} x",
            b"{'a': 1}",
            b"\xef\xbb\xbf{}",
            '{"a":1}'.encode("utf-16"),
            b"\xff\xfe",
            b'{"entrypoint": "\xff"}',
            b"[" * 60_000,
            b'{"a":' * 10_000,
            b'{"args":' + b"[" * 900 + b"]" * 900 + b"}",
            b'{"timeout":' + b"9" * 5000 + b"}",
            b'{"timeout": NaN}',
            b'{"stdin_live": 1}',
            b'{"stdin_live": "true"}',
            b'{"x": -Infinity}',
            b'{"entrypoint":"main.py","entrypoint":"b.py"}',
            b'{"x": {"y": 1, "y": 2}}',
            b"{" + b" " * 300_000 + b"}",
            b'{"stdin": "a\nb"}',
        ):
            with self.subTest(raw[:40]):
                self.refuse(raw)

    def test_limits_that_are_none(self) -> None:
        values = (0, -1, True, "300", 3.7, 3.0, None, [], {}, 301, 10**30, float("1e300"))
        for name in ("timeout", "memory_mb"):
            for value in values if name == "timeout" else (*values[:-3], 15, 513, 10**30):
                with self.subTest(name=name, value=value):
                    self.assertIn(name, self.refuse({name: value}).sentence)
            self.refuse(b'{"%s": 1e999}' % name.encode())
        for value in (True, "1", None, -1, 301, 10**30, []):
            with self.subTest(value):
                self.assertIn("cpu_seconds", self.refuse({"cpu_seconds": value}).sentence)
        self.refuse(b'{"cpu_seconds": 1e999}')

    def test_interpreters_that_are_not_on_the_list(self) -> None:
        for name in (
            "/bin/sh",
            "../../bin/sh",
            "python3 -c x",
            "python3;id",
            "",
            None,
            ["python3"],
            "Python3",
            "python3\0",
            "python3\n",
            "x" * 10_000,
        ):
            with self.subTest(name):
                self.refuse({"interpreter": name})

    def test_entrypoints_that_are_not_in_the_upload(self) -> None:
        for path in ("/etc/passwd", "../main.py", "a/../main.py", " ", ".", "a/./b", "x" * 2000):
            with self.subTest(path):
                self.refuse({"entrypoint": path})

    def test_a_mistyped_entrypoint_gets_a_hint(self) -> None:
        self.assertIn("'main.py'", self.refuse({"entrypoint": "mian.py"}).details)
        error = self.refuse({"entrypoint": "main.py"}, "proj/main.py", "proj/b.py")
        self.assertIn("'proj/main.py'", error.details)
        self.refuse({"entrypoint": "x" * 1000}, *(f"{'x' * 900}{n}" for n in range(5000)))

    def test_no_entrypoint_at_all(self) -> None:
        self.assertEqual(self.refuse({}, "a.py", "b.py").sentence, "No entrypoint specified")
        self.refuse({}, "data.bin")
        self.refuse({"interpreter": "perl"}, "a.pl", "b.pl")

    def test_words_that_execve_would_not_take(self) -> None:
        self.refuse({"args": ["x"] * 1001})
        self.refuse({"args": "--n 3"})
        self.refuse({"args": [1]})
        self.refuse({"args": ["a\0b"]})
        self.refuse({"stdin": "a\0b"})
        self.refuse(b'{"args": ["\\ud800"]}')
        self.refuse(b'{"env": {"A": "\\udfff"}}')

    def test_args_that_are_together_too_long(self) -> None:
        asked = manifest.read(b"{}")
        long = type(asked)(args=["x" * 70_000, "é" * 35_000])
        with self.assertRaises(InvalidManifest):
            long.settle(["main.py"], RUNTIMES, Bounds())

    def test_variables_that_change_what_is_run(self) -> None:
        for name in (
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "GLIBC_TUNABLES",
            "PATH",
            "",
            "=",
            "A=B",
            "1A",
            "A-B",
            "A\0",
            "A\n",
            "É",
        ):
            with self.subTest(name):
                self.refuse({"env": {name: "x"}})
        self.refuse({"env": {"A": 1}})
        self.refuse({"env": ["A=1"]})

    def test_outputs_outside_of_the_work_directory(self) -> None:
        for pattern in ("/", "/etc/*", "..", "../x", "a/../../b", "", "./", "a\0", "x" * 2000):
            with self.subTest(pattern):
                self.refuse({"outputs": [pattern]})
        self.refuse({"outputs": ["x"] * 101})

    def test_a_gpu_that_is_required(self) -> None:
        self.refuse({"gpu": {"required": True}})


class Pointed(unittest.TestCase):
    """Where a manifest is at fault, and that all of its faults are told at once."""

    def faults(self, asked: Any, *paths: str) -> dict[str, str]:
        with self.assertRaises(InvalidManifest) as caught:
            settle(asked, *paths)
        for fault in caught.exception.faults:
            self.assertEqual(self.found(asked, fault.pointer)[1], fault.pointer.count("/"))
        return dict(caught.exception.faults)

    def found(self, asked: Any, pointer: str) -> tuple[Any, int]:
        """What the pointer points to, and how deep it lies; it may point to what is missing."""
        names = [name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]]
        for name in names:
            asked = asked[int(name)] if isinstance(asked, list) else asked.get(name, {})
        return asked, len(names)

    def test_every_fault_of_a_key_points_to_it(self) -> None:
        for asked, pointer in (
            ({"timeout": "300"}, "/timeout"),
            ({"timeout": 301}, "/timeout"),
            ({"memory_mb": 1}, "/memory_mb"),
            ({"cpu_seconds": -1}, "/cpu_seconds"),
            ({"ttl": 0}, "/ttl"),
            ({"timout": 1}, "/timout"),
            ({"a/b~c": 1}, "/a~1b~0c"),
            ({"requirements": "numpy"}, "/requirements"),
            ({"gpu": True}, "/gpu"),
            ({"entrypoint": "mian.py"}, "/entrypoint"),
            ({"entrypoint": "../x"}, "/entrypoint"),
            ({"entrypoint": 5}, "/entrypoint"),
            ({"entrypoint": "a\0"}, "/entrypoint"),
            ({"interpreter": "pyhton"}, "/interpreter"),
            ({"environment": "ml-basic"}, "/environment"),
            ({"environment": "perl", "interpreter": "python3"}, "/environment"),
            ({"args": "x"}, "/args"),
            ({"args": ["a", 1]}, "/args/1"),
            ({"args": ["a", "b\0"]}, "/args/1"),
            ({"args": ["x"] * 1001}, "/args"),
            ({"env": ["A=1"]}, "/env"),
            ({"env": {"A": "1", "B": 2}}, "/env/B"),
            ({"env": {"LD_PRELOAD": "x"}}, "/env/LD_PRELOAD"),
            ({"env": {"a/b": "x"}}, "/env/a~1b"),
            ({"env": {"x" * 61: 1}}, "/env"),
            ({"env": {"\ud800": "1"}}, "/env"),
            ({"outputs": ["*.png", "../x"]}, "/outputs/1"),
            ({"outputs": [["x"]]}, "/outputs/0"),
        ):
            with self.subTest(asked):
                self.assertEqual(list(self.faults(asked)), [pointer])
        self.assertEqual(list(self.faults({}, "a.py", "b.py")), ["/entrypoint"])
        self.assertEqual(list(self.faults({}, "data.bin")), ["/interpreter"])

    def test_all_of_them_are_told_at_once(self) -> None:
        asked = {"timeout": "5", "memry": 16, "args": [1], "gpu": True}
        self.assertEqual(list(self.faults(asked)), ["/args/0", "/timeout", "/memry", "/gpu"])
        asked = {
            "entrypoint": "mian.py",
            "interpreter": "pyhton",
            "timeout": 0,
            "memory_mb": 1,
            "env": {"PATH": "", "B": "", "1": ""},
            "outputs": ["/", "ok", ".."],
        }
        found = self.faults(asked)
        self.assertEqual(
            list(found),
            ["/interpreter", "/entrypoint", "/env/PATH", "/env/1", "/outputs/0", "/outputs/2"]
            + ["/timeout", "/memory_mb"],
        )
        self.assertEqual(
            found["/entrypoint"],
            "entrypoint 'mian.py' is not in the upload. Did you mean 'main.py'?",
        )
        self.assertIn("Did you mean python?", found["/interpreter"])

    def test_the_sentence_is_the_first_one_and_says_that_there_are_more(self) -> None:
        with self.assertRaises(InvalidManifest) as caught:
            settle({"timeout": 0, "ttl": 0})
        self.assertEqual(caught.exception.sentence, "timeout must be from 1 to 300")
        self.assertEqual(caught.exception.details, "1 more: see errors.")

    def test_not_more_than_eight_are_looked_for(self) -> None:
        began = time.monotonic()
        for asked in (
            {f"key{number}": 1 for number in range(5000)},
            {"env": {f"{number}": "" for number in range(1000)}},
        ):
            self.assertEqual(len(self.faults(asked)), 8)
        self.assertLess(time.monotonic() - began, 0.5)

    def test_nothing_of_a_refused_manifest_waits_for_the_garbage_collector(self) -> None:
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for asked in ({"timeout": 0}, {"a": 1, "b": 2}, {"env": {str(n): "" for n in range(9)}}):
            with contextlib.suppress(InvalidManifest):
                settle(asked)
            left = [one for one in gc.get_objects() if isinstance(one, InvalidManifest)]
            self.assertEqual(left, [])

    def test_keys_of_other_services_are_translated(self) -> None:
        for name, meant in (("language", "interpreter"), ("time_limit", "timeout")):
            self.assertIn(f"Did you mean {meant}?", self.faults({name: 1})[f"/{name}"])

    def test_a_key_that_is_there_twice_is_named(self) -> None:
        with self.assertRaisesRegex(InvalidManifest, "names the key 'b' twice"):
            manifest.read(b'{"a": 1, "b": 1, "b": 2}')
