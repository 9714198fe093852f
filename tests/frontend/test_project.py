"""project.js sends of a folder what the command line sends, and finds the entrypoint as the server
does: real folders, drawn at random, are asked of both.
"""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

from jobs.errors import InvalidManifest
from jobs.manifest import Asked, Bounds
from sandbox.runtimes import Runtime
from sandrun.errors import SandrunError
from sandrun.ignoring import rules
from sandrun.project import NEVER, SECRET, collect

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "frontend/static/frontend"


def node(names: str, module: str, what: str, given: object) -> Any:
    """The JSON of an expression over `given`, with these names of a module."""
    code = (
        f"import {{ {names} }} from {json.dumps(str(STATIC / module))};"
        "const given = JSON.parse((await import('node:fs')).readFileSync(0));"
        f"console.log(JSON.stringify({what}))"
    )
    done = subprocess.run(
        ["node", "--input-type=module", "-e", "globalThis.File ??= class {};" + code],
        input=json.dumps(given), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_the_lists_are_those_of_the_command_line() -> None:
    found = node("NEVER, SECRET", "project.js", "[NEVER, SECRET]", None)
    assert found == [list(NEVER), list(SECRET)]


PIECES = [
    "a",
    "b",
    "ab",
    "A",
    "é",
    "*",
    "**",
    "?",
    "[ab]",
    "[!a]",
    "[^a-c]",
    "[]a]",
    "[!]",
    "[]",
    "[",
    "]",
    "[a-",
    "[z-a]",
    "[[:alpha:]]",
    "[[:digit:]x]",
    "[[:nope:]]",
    "\\",
    "\\*",
    "\\a",
    "/",
    "/",
    "**/",
    "/**",
    " ",
    "\\ ",
    "!",
    "#",
    "\r",
    ".",
    "-",
    "{",
    "|",
    "(",
    "$",
    "^",
    "+",
    "~",
]
NAMES = [
    "a",
    "b",
    "ab",
    "abc",
    "A",
    "é",
    "*",
    "a b",
    "a ",
    "!a",
    "#",
    "]",
    "-",
    "1",
    ".a",
    "\\",
    "{",
    "|(",
    "$^+",
]


def test_lines_of_a_gitignore_mean_what_they_mean_to_the_command_line() -> None:
    pick = random.Random("ignoring")
    cases = []
    for _ in range(4000):
        line = "".join(pick.choices(PIECES, k=pick.randint(1, 6)))
        path = "/".join(pick.choices(NAMES, k=pick.randint(1, 3)))
        cases.append((line, path, pick.random() < 0.5))
    expected = [said(*case) for case in cases]
    what = "given.map(([line, path, isFolder]) => says(rules([line]), path, isFolder))"
    found = node("rules, says", "ignoring.js", what, cases)
    different = [one for one in zip(cases, found, expected, strict=True) if one[1] != one[2]]
    assert different == []
    assert sum(one is not None for one in expected) > 100


def said(line: str, path: str, is_folder: bool) -> bool | None:
    as_bytes = path.encode().decode("latin-1")
    for rule in rules([line.encode().decode("latin-1")]):
        if rule.matches(as_bytes, is_folder):
            return rule.ignores
    return None


FILES = [
    "main.py",
    "a.txt",
    "b.log",
    ".env",
    ".env.example",
    "id_rsa.pub",
    "server.KEY",
    "x.pyc",
    "Ä b.csv",
    ".DS_Store",
    "config.json",
    "credentials.json",
    "keep.env",
    "tfstate",
    "x.tfstate",
]
FOLDERS = [
    "src",
    "build",
    "node_modules",
    ".git",
    ".docker",
    ".ssh",
    "deep er",
    "venv",
    "__pycache__",
]
LINES = [
    "*.log",
    "build/",
    "/a.txt",
    "!keep.env",
    "!.env",
    "src/**/b.log",
    "*",
    "!main.py",
    "deep er",
    "# x",
    "",
    "!node_modules/",
    "**/config.json",
    "Ä*",
    "!*.pyc",
    "!id_rsa.pub",
    "s?c/",
]


def drawn(pick: random.Random, folder: Path, depth: int = 0) -> None:
    folder.mkdir()
    for name in pick.sample(FILES, pick.randint(1, 5)):
        (folder / name).write_text(name * pick.randint(0, 3))
    for name in (".gitignore", ".sandrunignore"):
        if pick.random() < 0.4:
            lines = pick.sample(LINES, pick.randint(1, 4))
            (folder / name).write_text(pick.choice(["", "\ufeff"]) + "\n".join(lines))
    if depth < 3:
        for name in pick.sample(FOLDERS, pick.randint(0, 3)):
            drawn(pick, folder / name, depth + 1)


def test_a_hundred_folders_are_sent_as_the_command_line_sends_them(tmp_path: Path) -> None:
    pick = random.Random("folders")
    folders = [tmp_path / f"top {number}" for number in range(100)]
    for folder in folders:
        drawn(pick, folder)
    done = subprocess.run(
        ["node", HERE / "choosing.mjs"], input=json.dumps([str(one) for one in folders]),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    withheld, brought_back = 0, 0
    for folder, (chosen, dropped) in zip(folders, json.loads(done.stdout), strict=True):
        try:
            project = collect(folder)
        except SandrunError:
            assert chosen[0] == dropped[0] == []
            continue
        files = [[entry.path, entry.size] for entry in project.entries]
        for sent, skipped in (chosen, dropped):
            assert sorted(sent) == files, folder
            assert sorted(path for path, why in skipped if why == "secret") == project.withheld
        # Empty folders are not among the files of an input.
        assert sum(why == "ignored" for _, why in dropped[1]) == project.ignored
        withheld += len(project.withheld)
        brought_back += sum(path.endswith(".env") for path, _ in files)
    assert withheld > 50 and brought_back > 5


RUNTIMES = {
    name: Runtime(
        name=name,
        aliases=tuple(aliases),
        extensions=tuple(extensions),
        entrypoint=entrypoint,
        probe=("true",),
        steps=(("true", "{file}"),),
        env={},
    )
    for name, aliases, extensions, entrypoint in (
        ("bash", [], [".sh"], "main.sh"),
        ("c", ["gcc"], [".c"], "main.c"),
        ("node", ["nodejs"], [".js", ".mjs"], "index.js"),
        ("python3", ["python"], [".py"], "main.py"),
        ("sh", [], [], ""),
    )
}


def test_the_entrypoint_is_what_the_server_would_take() -> None:
    pick = random.Random("entrypoints")
    usual = ["main.py", "index.js", "main.c", "main.sh", "x.py", "sub/main.py", "a.txt", "B.PY"]
    cases = [
        [
            pick.sample(usual, pick.randint(1, 4)),
            pick.choice(["", "", "python", "node", "sh", "gcc"]),
        ]
        for _ in range(300)
    ]
    known = {
        name: {"aliases": one.aliases, "extensions": one.extensions, "entrypoint": one.entrypoint}
        for name, one in RUNTIMES.items()
    }
    what = """given[0].map(([paths, interpreter]) => {
      const path = entrypointOf(paths.map((path) => ({ path })), interpreter, given[1]);
      return [path, path && interpreterOf(path, given[1])];
    })"""
    found = node("entrypointOf, interpreterOf", "project.js", what, [cases, known])
    refused = 0
    for (paths, interpreter), (path, runtime) in zip(cases, found, strict=True):
        asked = Asked(interpreter=interpreter) if interpreter else Asked()
        try:
            settled = asked.settle(paths, RUNTIMES, Bounds())
        except InvalidManifest:
            assert path is None or (not interpreter and runtime is None), (paths, interpreter)
            refused += 1
        else:
            assert path == settled.entrypoint
            assert interpreter or runtime == settled.interpreter
    assert 20 < refused < 250


def test_the_names_that_the_server_refuses_are_known() -> None:
    from sandbox.errors import BundleRefused
    from sandbox.members import clean_path

    pick = random.Random("names")
    pieces = [
        "a",
        "/",
        "..",
        ".",
        "\\",
        ":",
        "\0",
        "ü" * 100,
        "x" * 200,
        "/" * 2,
        "b/" * 20,
        " ",
        "\u202e",
    ]
    names = ["".join(pick.choices(pieces, k=pick.randint(1, 6))) for _ in range(1000)]
    found = node("faultOf", "paths.js", "given.map(faultOf)", names)
    for name, fault in zip(names, found, strict=True):
        try:
            clean = clean_path(name)
        except BundleRefused:
            assert fault, name
        else:
            assert bool(fault) == (clean != name), (name, fault)
