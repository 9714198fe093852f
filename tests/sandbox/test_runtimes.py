"""The runtimes' files, and that each of those on this machine runs a program in a sandbox."""

import shutil
from pathlib import Path

import pytest

from sandbox.model import Command
from sandbox.runtimes import BASE_ENV, PATH, Runtime, load
from tests.sandbox.box import Box

RUNTIMES = load()
PROGRAMS = {
    "python3": "print(6 * 7)",
    "node": "console.log(6 * 7)",
    "bash": "a=(6 7); echo $((a[0] * a[1]))",
    "sh": "echo $((6 * 7))",
    "perl": "print 6 * 7, qq(\\n);",
    "c": "#include <stdio.h>\nint main(void) { return printf(\"%d\\n\", 6 * 7) < 0; }",
    "cpp": "#include <iostream>\nint main() { std::cout << 6 * 7 << std::endl; }",
}  # fmt: skip
EXTENSIONS = {"sh": ".sh"}  # has none of its own: bash takes it
MINIMAL = 'probe = ["x", "-v"]\nsteps = [["x", "{file}"]]\n'


def written(folder: Path, text: str) -> Path:
    (folder / "x.toml").write_text(text)
    return folder


def test_every_runtime_is_tried_here() -> None:
    assert set(RUNTIMES) == set(PROGRAMS)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_says_all_that_is_needed(name: str) -> None:
    runtime = RUNTIMES[name]
    assert runtime.name == name and runtime.probe and runtime.steps
    assert all(extension.startswith(".") for extension in runtime.extensions)
    assert any("{file}" in word for step in runtime.steps for word in step)
    if runtime.entrypoint:
        assert Path(runtime.entrypoint).suffix in runtime.extensions


def test_no_two_runtimes_have_one_name() -> None:
    names = [name for runtime in RUNTIMES.values() for name in (runtime.name, *runtime.aliases)]
    assert len(names) == len(set(names))


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    (runtime,) = load(written(tmp_path, MINIMAL)).values()
    assert runtime == Runtime("x", (), (), "", ("x", "-v"), (("x", "{file}"),), {})


def test_runtimes_come_in_the_order_of_their_files(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.toml").write_text(MINIMAL)
    (tmp_path / "README.md").write_text("not a runtime")
    assert list(load(tmp_path)) == ["a", "b", "c"]


BAD = {
    "no TOML": "steps = [",
    "empty": "",
    "no steps": 'probe = ["x"]\n',
    "no probe": 'steps = [["x"]]\n',
    "empty steps": 'probe = ["x"]\nsteps = []\n',
    "empty probe": 'probe = []\nsteps = [["x"]]\n',
    "an unknown field": MINIMAL + 'shell = "yes"\n',
    "a probe that is a string": 'probe = "x -v"\nsteps = [["x"]]\n',
    "a step that is a string": 'probe = ["x"]\nsteps = ["x {file}"]\n',
    "steps that are a string": 'probe = ["x"]\nsteps = "x {file}"\n',
    "a word that is a number": 'probe = ["x"]\nsteps = [["x", 3]]\n',
    "an empty step": 'probe = ["x"]\nsteps = [[]]\n',
    "extensions that are a string": MINIMAL + 'extensions = ".x"\n',
    "an environment that is a list": MINIMAL + 'env = ["A=1"]\n',
    "an entrypoint that is a list": MINIMAL + 'entrypoint = ["a"]\n',
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused(tmp_path: Path, case: str) -> None:
    with pytest.raises(ValueError):
        load(written(tmp_path, BAD[case]))


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x.toml"):
        load(written(tmp_path, BAD["a probe that is a string"]))


# --- command() -------------------------------------------------------------------------------

STEPS = (("cc", "-o", "p", "{file}"), ("p", "{file}.in"))
TWO = Runtime("two", (), (), "", ("v",), STEPS, {"A": "1"})


def test_the_file_takes_its_place_in_every_step() -> None:
    steps = TWO.command("src/m.c").steps
    assert steps == (("cc", "-o", "p", "./src/m.c"), ("p", "./src/m.c.in"))


def test_arguments_go_to_the_last_step_byte_for_byte() -> None:
    args = ("a b", "$(id)", "", "{file}", "-x", "ü\n")
    assert TWO.command("m", args).steps == (("cc", "-o", "p", "./m"), ("p", "./m.in", *args))


@pytest.mark.parametrize("name", ["-c", "--version", "-", "a b.py", "$(id).py", "{file}"])
def test_a_name_is_never_an_option(name: str) -> None:
    (step,) = RUNTIMES["python3"].command(name).steps
    assert step == ("python3", "./" + name)


def test_the_environment_is_the_base_the_runtimes_and_the_callers() -> None:
    assert TWO.command("m").env == {**BASE_ENV, "A": "1"}
    env = TWO.command("m", (), {"A": "2", "LANG": "C"}).env
    assert env == {**BASE_ENV, "A": "2", "LANG": "C"}
    assert TWO.command("m").env == {**BASE_ENV, "A": "1"}  # and nobody's was changed


# --- on this machine -------------------------------------------------------------------------

HERE = [name for name, runtime in RUNTIMES.items() if shutil.which(runtime.probe[0], path=PATH)]


def test_the_runtimes_that_every_debian_has_are_here() -> None:
    assert {"python3", "sh", "bash", "perl"} <= set(HERE)


@pytest.mark.parametrize("name", HERE)
def test_a_runtime_runs_a_program(box: Box, name: str) -> None:
    runtime = RUNTIMES[name]
    file = "-x" + (EXTENSIONS.get(name) or runtime.extensions[0])
    files = {file: PROGRAMS[name].encode()}
    ran = box.wait(box.arun(runtime.command(file), files=files))
    assert (ran.stdout, ran.stderr, ran.code) == (b"42\n", b"", 0)
    assert ran.files == {}  # neither caches nor compiled programs are outputs


@pytest.mark.parametrize("name", HERE)
def test_a_runtime_says_its_version(box: Box, name: str) -> None:
    ran = box.wait(box.arun(Command((RUNTIMES[name].probe,), BASE_ENV)))
    assert ran.code == 0 and ran.text.splitlines()[0]


@pytest.mark.parametrize("name", [n for n in HERE if len(RUNTIMES[n].steps) > 1])
def test_a_program_that_does_not_compile_ends_in_the_first_step(box: Box, name: str) -> None:
    runtime = RUNTIMES[name]
    file = "m" + runtime.extensions[0]
    ran = box.wait(box.arun(runtime.command(file), files={file: b"no program"}))
    assert ran.code == 1 and ran.result.verdict.step == 0 and b"error" in ran.stderr
