"""The runtimes' files, and that each of those on this machine runs a program in a sandbox.

With SANDRUN_RUNTIMES=all in the environment one that is not installed fails; `script/runtimes`
installs them all and sets it. Run as a program this prints the table of sandbox/README.md.
"""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sandbox.model import MIB, Limits
from sandbox.runtimes import BASE_ENV, PATH, Runtime, load
from tests.sandbox.box import Box, Ran

RUNTIMES = load()
MINIMAL = 'probe = ["x", "-v"]\nsteps = [["x", "{file}"]]\n'

# Each says what its first argument and the first line of stdin are, and writes a file.
HELLO = {
    "python3": """
import sys
print(sys.argv[1], input())
open("out.txt", "w").write("42")
""",
    "node": """
const fs = require("fs");
console.log(process.argv[2], fs.readFileSync(0, "utf8").trim());
fs.writeFileSync("out.txt", "42");
""",
    "bash": """
read -r line; words=("$1" "$line")
echo "${words[@]}"
printf 42 >out.txt
""",
    "sh": """
read -r line
echo "$1 $line"
printf 42 >out.txt
""",
    "perl": """
chomp(my $line = <STDIN>);
print "$ARGV[0] $line\\n";
open(my $out, ">", "out.txt"); print $out 42;
""",
    "ruby": """
puts "#{ARGV[0]} #{$stdin.gets.chomp}"
File.write("out.txt", "42")
""",
    "php": """<?php
echo $argv[1], " ", trim(fgets(STDIN)), "\\n";
file_put_contents("out.txt", "42");
""",
    "Rscript": """
cat(commandArgs(TRUE)[1], " ", readLines(file("stdin"), 1), "\\n", sep = "")
cat("42", file = "out.txt")
""",
    "lua": """
print(arg[1] .. " " .. io.read())
local out = io.open("out.txt", "w"); out:write("42"); out:close()
""",
    "c": """
#include <stdio.h>
int main(int n, char **words) {
    char line[80];
    printf("%s %s", words[1], fgets(line, sizeof line, stdin));
    return fputs("42", fopen("out.txt", "w")) < 0;
}
""",
    "cpp": """
#include <fstream>
#include <iostream>
int main(int n, char **words) {
    std::string line;
    std::getline(std::cin, line);
    std::cout << words[1] << " " << line << std::endl;
    std::ofstream("out.txt") << 42;
}
""",
    "go": """
package main
import ("bufio"; "fmt"; "os")
func main() {
    line, _ := bufio.NewReader(os.Stdin).ReadString('\\n')
    fmt.Print(os.Args[1], " ", line)
    os.WriteFile("out.txt", []byte("42"), 0o644)
}
""",
    "rust": """
fn main() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    println!("{} {}", std::env::args().nth(1).unwrap(), line.trim());
    std::fs::write("out.txt", "42").unwrap();
}
""",
    "java": """
import java.nio.file.*;
class Hello {
    public static void main(String[] args) throws Exception {
        System.out.println(args[0] + " " + new java.util.Scanner(System.in).nextLine());
        Files.writeString(Path.of("out.txt"), "42");
    }
}
""",
}
# A name that looks like an option, but where the language refuses it. (.sh would be bash's.)
NAMES = {"sh": "-x.sh", "go": "x.go"}


def written(folder: Path, text: str) -> Path:
    (folder / "x.toml").write_text(text)
    return folder


def test_every_runtime_is_tried_here() -> None:
    assert set(RUNTIMES) == set(HELLO)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_says_all_that_is_needed(name: str) -> None:
    runtime = RUNTIMES[name]
    assert runtime.name == name and runtime.probe and runtime.steps
    assert all(extension.startswith(".") for extension in runtime.extensions)
    words = [word for step in runtime.steps for word in step]
    assert any("{file}" in word or "{folder}" in word for word in words)
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
    "an unknown placeholder": 'probe = ["x"]\nsteps = [["x", "{heap}"]]\n',
    "a file in the environment": MINIMAL + 'env = { A = "{file}" }\n',
    "a file in the probe": 'probe = ["x", "{file}"]\nsteps = [["x"]]\n',
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused(tmp_path: Path, case: str) -> None:
    with pytest.raises(ValueError):
        load(written(tmp_path, BAD[case]))


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x.toml"):
        load(written(tmp_path, BAD["a probe that is a string"]))
    with pytest.raises(ValueError, match=r"x.toml: unknown placeholder \['heap'\]"):
        load(written(tmp_path, BAD["an unknown placeholder"]))


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


@pytest.mark.parametrize(
    "memory_mb, heap_mb", [(16, 4), (64, 16), (128, 64), (256, 192), (512, 384), (4096, 3072)]
)
def test_a_heap_leaves_room_for_what_is_around_it(memory_mb: int, heap_mb: int) -> None:
    runtime = Runtime("x", (), (), "", ("v",), (("x", "-h{heap_mb}/{memory_mb}"),), {})
    (step,) = runtime.command("m", limits=Limits(memory_bytes=memory_mb * MIB)).steps
    assert step == ("x", f"-h{heap_mb}/{memory_mb}")


@pytest.mark.parametrize("cpus, whole", [(0.1, "1"), (1.0, "1"), (1.5, "2"), (4.0, "4")])
def test_threads_are_a_whole_number(cpus: float, whole: str) -> None:
    runtime = Runtime("x", (), (), "", ("v", "{cpus}"), (("x",),), {"THREADS": "{cpus}"})
    limits = Limits(cpus=cpus)
    assert runtime.command("m", limits=limits).env["THREADS"] == whole
    version = runtime.version_command(limits)
    assert (version.steps, version.env["THREADS"]) == ((("v", whole),), whole)


@pytest.mark.parametrize(
    "file, folder, folders",
    [("m.x", ".", "."), ("a/m.x", "./a", "./a:."), ("-a/b/m.x", "./-a/b", "./-a/b:./-a:.")],
)
def test_a_runtime_may_ask_for_the_folders_of_the_file(
    file: str, folder: str, folders: str
) -> None:
    runtime = Runtime("x", (), (), "", ("v",), (("x", "{folder}", "{folders}"),), {})
    assert runtime.command(file).steps == (("x", folder, folders),)


def test_what_the_job_sets_is_not_filled() -> None:
    assert TWO.command("m", (), {"A": "{cpus}"}).env["A"] == "{cpus}"


# --- on this machine -------------------------------------------------------------------------

EVERY = os.environ.get("SANDRUN_RUNTIMES") == "all"
HERE = [n for n, runtime in RUNTIMES.items() if EVERY or shutil.which(runtime.probe[0], path=PATH)]
SMALL: dict[str, Any] = {"memory_bytes": 256 * MIB, "tasks": 32}


def only(*names: str) -> list[str]:
    return [name for name in names if name in HERE]


def run(
    box: Box, name: str, files: dict[str, str], *args: str, stdin: bytes = b"", **limits: Any
) -> Ran:
    """Run the first of `files`."""
    command = RUNTIMES[name].command(next(iter(files)), args, limits=Limits(**limits))
    contents = {path: text.encode() for path, text in files.items()}
    ran = box.wait(box.arun(command, files=contents, stdin=stdin, **limits))
    assert isinstance(ran, Ran)
    return ran


def file_of(name: str) -> str:
    return NAMES.get(name) or "-x" + RUNTIMES[name].extensions[0]


def hello(box: Box, name: str, **limits: Any) -> Ran:
    return run(box, name, {file_of(name): HELLO[name]}, "a  b", stdin=b"from stdin\n", **limits)


def test_the_runtimes_that_every_debian_has_are_here() -> None:
    assert {"python3", "sh", "bash", "perl"} <= set(HERE)


@pytest.mark.parametrize("name", HERE)
def test_a_runtime_runs_a_program_in_half_the_usual_memory(box: Box, name: str) -> None:
    ran = hello(box, name, **SMALL)
    assert (ran.stderr, ran.stdout, ran.code) == (b"", b"a  b from stdin\n", 0)
    assert ran.result.verdict.step == len(RUNTIMES[name].steps) - 1
    assert ran.files == {"out.txt": b"42"}  # neither caches nor compiled programs are outputs


@pytest.mark.parametrize("name", HERE)
def test_a_runtime_says_its_version(box: Box, name: str) -> None:
    ran = box.wait(box.arun(RUNTIMES[name].version_command(Limits())))
    assert ran.code == 0 and ran.text.splitlines()[0]


@pytest.mark.parametrize("name", HERE)
def test_what_is_no_program_ends_in_the_first_step_and_says_so_on_stderr(
    box: Box, name: str
) -> None:
    ran = run(box, name, {file_of(name): "<?php no program (("}, **SMALL)
    assert (ran.reason, ran.result.verdict.step, ran.stdout) == ("exit", 0, b"")
    assert ran.code and ran.stderr


# Each prints the most MB of its heap, and the cores that it thinks it has.
SIZES = {
    "node": "console.log(require('v8').getHeapStatistics().heap_size_limit / 2 ** 20, 2)",
    "Rscript": "cat(mem.maxVSize(), Sys.getenv('OMP_NUM_THREADS'))",
    "go": """
package main
import ("fmt"; "runtime"; "runtime/debug")
func main() { fmt.Println(debug.SetMemoryLimit(-1) >> 20, runtime.GOMAXPROCS(0)) }
""",
    "java": """
class Sizes {
    public static void main(String[] args) {
        Runtime all = Runtime.getRuntime();
        System.out.println((all.maxMemory() >> 20) + " " + all.availableProcessors());
    }
}
""",
}


@pytest.mark.parametrize("name", only(*SIZES))
def test_heap_and_threads_come_from_the_limits_of_the_job(box: Box, name: str) -> None:
    limits: dict[str, Any] = {"memory_bytes": 128 * MIB, "cpus": 2.0}
    ran = run(box, name, {file_of(name): SIZES[name]}, **limits)
    heap, cpus = map(float, ran.text.split())
    assert 48 <= heap < 128 and cpus == 2


@pytest.mark.parametrize("name", only("node"))
def test_garbage_is_collected_before_the_kernel_kills(box: Box, name: str) -> None:
    code = "let a = []; for (let i = 0; i < 500; i++) a[i % 32] = new Array(131072).fill(i + 0.5)"
    assert run(box, name, {"x.js": code}, memory_bytes=128 * MIB).code == 0


@pytest.mark.parametrize("name", only("java"))
def test_a_heap_that_is_full_is_an_error_of_the_program(box: Box, name: str) -> None:
    code = "class A { public static void main(String[] a) { long[] b = new long[20 << 20]; } }"
    ran = run(box, name, {"A.java": code}, memory_bytes=128 * MIB)
    assert ran.reason == "exit" and b"OutOfMemoryError" in ran.stderr


# A program of more than one file; the first is the entrypoint.
PROJECTS = {
    "go, one folder": {
        "p/main.go": "package main\nfunc main() { println(answer()) }",
        "p/answer.go": "package main\nfunc answer() int { return 42 }",
    },
    "go, a module": {
        "p/main.go": 'package main\nimport "a.test/p/lib"\nfunc main() { println(lib.Answer) }',
        "p/lib/lib.go": "package lib\nconst Answer = 42",
        "p/go.mod": "module a.test/p\n\ngo 1.18\n",
    },
    "java, one folder": {
        "p/Main.java": "class Main { public static void main(String[] a) {"
        " System.err.println(Answer.now()); } }",
        "p/Answer.java": "class Answer { static int now() { return 42; } }",
        "p/Other.java": "not looked at",
    },
    "java, packages": {
        "src/a/b/App.java": "package a.b; class Helper {} public class App {"
        " public static void main(String[] args) { System.err.println(a.c.Answer.NOW); } }",
        "src/a/c/Answer.java": "package a.c; public class Answer { public static int NOW = 42; }",
    },
    "rust, modules": {
        "src/main.rs": 'mod answer; fn main() { eprintln!("{}", answer::now()); }',
        "src/answer.rs": "pub fn now() -> u8 { 42 }",
    },
}


@pytest.mark.parametrize("case", [case for case in PROJECTS if case.partition(",")[0] in HERE])
def test_a_program_of_several_files_is_built_from_its_folder(box: Box, case: str) -> None:
    ran = run(box, case.partition(",")[0], PROJECTS[case])
    assert (ran.stderr, ran.code, ran.files) == (b"42\n", 0, {})


# Those that keep back what is written to a pipe, unless told: ruby, perl, c and cpp.
WATCHED = {
    "python3": "import time; print(42); time.sleep(99)",
    "node": "console.log(42); setTimeout(() => 0, 99000)",
    "bash": "echo 42; sleep 99",
    "php": "<?php echo 42, PHP_EOL; sleep(99);",
    "Rscript": "cat('42\\n'); Sys.sleep(99)",
    "lua": "print(42) os.execute('sleep 99')",
    "go": 'package main\nimport ("fmt"; "time")\n'
    "func main() { fmt.Println(42); time.Sleep(99 * time.Second) }",
    "rust": 'fn main() { println!("42"); std::thread::sleep(std::time::Duration::new(99, 0)) }',
    "java": "class A { public static void main(String[] a) throws Exception {"
    " System.out.println(42); Thread.sleep(99000); } }",
}


@pytest.mark.parametrize("name", only(*WATCHED))
def test_a_line_is_heard_while_the_program_runs(box: Box, name: str) -> None:
    async def until_it_speaks() -> Ran:
        stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def hear(stream: str, data: bytes) -> None:
            if not stop.done():
                stop.set_result("cancelled")

        file = file_of(name)
        files = {file: WATCHED[name].encode()}
        return await box.arun(RUNTIMES[name].command(file), files=files, on_output=hear, stop=stop)

    ran = box.wait(until_it_speaks())
    assert (ran.reason, ran.stdout.strip(), ran.stderr) == ("cancelled", b"42", b"")


def table(box: Box) -> None:
    """What a hello costs each runtime: the best of six: no disk, no neighbour."""
    print("| runtime | wall ms | CPU ms | peak MB |\n|---|---|---|---|")
    for name in HERE:
        usages = [hello(box, name).result.usage for _ in range(6)]
        wall, cpu, peak = (
            min(usage.wall_usec for usage in usages) / 1000,
            min(usage.cpu_usec for usage in usages) / 1000,
            min(usage.memory_peak_bytes for usage in usages) / MIB,
        )
        print(f"| `{name}` | {wall:.0f} | {cpu:.0f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    opened = Box().start()
    try:
        table(opened)
    finally:
        opened.close()
