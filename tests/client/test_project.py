"""A folder as it is sent: what git would leave out is left out, and what nobody means to send."""

import io
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from sandrun.errors import SandrunError
from sandrun.project import Entry, Project, collect, pack, read

TREE = (
    "main.py", "a.log", "keep.log", "build/x", "src/build/y", "src/a.log", "src/keep.log",
    "src/deep/z.tmp", "src/deep/z.txt", "src/deep/only/here.txt", "data/1.csv", "data/2.csv",
    "data/sub/3.csv", "docs/a b.md", "docs/#odd", "docs/[x].md", "ümläut/é.txt", "x/y/z/w.c",
    "x/y/skip/w.c", "out/a/b", "foo", "bar/foo/file", "trailing ",
)  # fmt: skip
RULES = {
    ".gitignore": "*.log\n!keep.log\n/build/\nfoo/\n\\#odd\n# a comment\nx/**/skip\nout/*\n"
    "!out/a/\n",
    "src/.gitignore": "!a.log\n/deep/*.tmp\nonly\n",
    "data/.gitignore": "*\n!1.csv\n!.gitignore\n",
}


def make(folder: Path, files: tuple[str, ...], rules: dict[str, str]) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for name, text in rules.items():
        (folder / name).write_text(text)


def sent(found: Project) -> set[str]:
    return {entry.path for entry in found.entries}


GIT = ["git", "-c", "core.excludesFile=/nowhere", "-c", "safe.directory=*"]


def git_sends(folder: Path) -> set[str]:
    listed = [*GIT, "ls-files", "-z", "--others", "--exclude-standard"]
    told = subprocess.run(listed, cwd=folder, check=True, capture_output=True).stdout
    return set(os.fsdecode(told).split("\0")) - {""}


def test_what_git_ignores_is_not_sent_and_all_else_is(tmp_path: Path) -> None:
    make(tmp_path, TREE, RULES)
    subprocess.run([*GIT, "init", "-q"], cwd=tmp_path, check=True)
    found = collect(tmp_path)
    assert sent(found) == git_sends(tmp_path)
    assert sent(collect(tmp_path / "src")) == git_sends(tmp_path / "src"), "rules above count too"
    assert {"src/a.log", "data/1.csv", "out/a/b", "foo"} <= sent(found)
    assert found.ignored > 5 and not found.withheld


def test_what_nobody_means_to_send_stays_and_secrets_are_named(tmp_path: Path) -> None:
    secrets = (".env", ".env.local", "keys/id_rsa", "tls/server.pem", ".aws/credentials", ".netrc")
    rest = (
        "main.py",
        ".venv/bin/python",
        "node_modules/x/i.js",
        "p/__pycache__/m.pyc",
        ".git/HEAD",
    )
    make(tmp_path, (*secrets, *rest), {})
    found = collect(tmp_path)
    assert sent(found) == {"main.py"}
    expected = {".env", ".env.local", "keys/id_rsa", "tls/server.pem", ".aws/", ".netrc"}
    assert set(found.withheld) == expected
    (tmp_path / ".sandrunignore").write_text("!.env\n!node_modules/\nmain.py\n")
    found = collect(tmp_path)
    assert sent(found) == {".env", ".sandrunignore", "node_modules/x/i.js"}
    assert ".env" not in found.withheld and ".env.local" in found.withheld


def test_a_gitignore_that_brings_folders_back_brings_no_secret_back(tmp_path: Path) -> None:
    files = (
        "src/.env",
        "src/id_rsa",
        "src/a.py",
        "src/node_modules/x.js",
        ".aws/x.json",
        "Key.PEM",
    )
    make(tmp_path, files, {".gitignore": "/*\n!/src/\n!.aws/\n!*.PEM\n"})
    found = collect(tmp_path)
    assert sent(found) == {"src/a.py"}
    assert set(found.withheld) == {"src/.env", "src/id_rsa", ".aws/", "Key.PEM"}


NAMES = ("a", "b", "ab", "a.c", "b.c", "foo", "x y", "[a]", "!n", "#h", "\u00e9")
PARTS = (*NAMES, "*", "**", "?", "a*", "*.c", "[ab]", "[!a]*", "\\*", "f?o", "***", "[a-", "\\", "")


def drawn(dice: random.Random) -> str:
    """A line of a .gitignore."""
    line = "/".join(dice.choices(PARTS, k=dice.choice((1, 1, 1, 2, 3))))
    return dice.choice(("", "", "", "!", "/", "!/")) + line + dice.choice(("", "", "/", " ", "\r"))


def test_of_random_trees_is_sent_what_git_lists(tmp_path: Path) -> None:
    for seed in range(150):
        dice = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for _ in range(14):
            path = folder.joinpath(*dice.choices(NAMES, k=dice.choice((1, 2, 2, 3, 4))))
            if not any(parent.is_file() for parent in (path, *path.parents)) and not path.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        for at in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            if at == folder or dice.random() < 0.3:
                lines = [drawn(dice) for _ in range(dice.randrange(1, 6))]
                start = dice.choice(("", "", "\ufeff"))
                (at / ".gitignore").write_text(start + "\n".join(lines), newline="")
        (folder / "sure").touch()
        rules = (folder / ".gitignore").read_text()
        subprocess.run([*GIT, "init", "-q"], cwd=folder, check=True)
        try:
            found = sent(collect(folder))
        except SandrunError:
            found = set()
        assert found == git_sends(folder), (seed, rules)


def test_links_are_followed_within_the_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    make(folder, ("main.py", "d/a.txt"), {})
    (tmp_path / "secret").write_text("secret")
    os.symlink("d/a.txt", folder / "inside")
    os.symlink("../secret", folder / "outside")
    (folder / ".env").write_text("secret")
    os.symlink(".env", folder / "config.txt")
    os.symlink("/etc/passwd", folder / "passwd")
    os.symlink("d", folder / "folder")
    os.symlink("nothing", folder / "broken")
    os.symlink("loop", folder / "loop")
    os.mkfifo(folder / "pipe")
    found = collect(folder)
    assert sent(found) == {"main.py", "d/a.txt", "inside"}
    assert set(found.strange) == {
        "outside", "passwd", "folder", "broken", "loop", "pipe", "config.txt",
    }  # fmt: skip


def test_the_archive_tells_nothing_but_names_modes_and_contents(tmp_path: Path) -> None:
    make(tmp_path, ("b", "a/" + "n" * 200, "é"), {})
    (tmp_path / "b").chmod(0o700)
    packed = pack(read(collect(tmp_path)))
    assert packed[4:8] == bytes(4), "no time"
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == ["a/" + "n" * 200, "b", "é"]
    assert {(m.mode, m.mtime, m.uid, m.uname) for m in members} == {
        (0o644, 0, 0, ""), (0o755, 0, 0, ""),
    }  # fmt: skip


def test_a_name_that_is_no_text_is_packed_as_its_bytes() -> None:
    name = os.fsdecode(b"\xff")
    with tarfile.open(fileobj=io.BytesIO(pack([(Entry(name, 1, 0o644), b"x")]))) as archive:
        assert archive.getnames() == [name]


@pytest.mark.parametrize(("files", "sentence"), [((), "has no file to send"), (None, "no folder")])
def test_nothing_to_send_is_told(
    tmp_path: Path, files: tuple[str, ...] | None, sentence: str
) -> None:
    with pytest.raises(SandrunError, match=sentence):
        collect(tmp_path if files == () else tmp_path / "nowhere")
