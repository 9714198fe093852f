"""Node, bash with its tools, git, make with gcc and g++, Perl: a real program each, in every CI
run."""

from __future__ import annotations

import json

from tests.languages.running import run, said
from tests.sandbox.box import Box


def test_node_works_with_threads_children_and_files(box: Box) -> None:
    *parts, last = said(run(box, "node", "all.js"))
    found = {name: json.loads(text) for name, _, text in (part.partition(" ") for part in parts)}
    assert found == {
        "workers": 6,
        "children": ["SPAWNED", 21, 0, "SIGTERM", "42"],
        "ciphers": ["secret", True, "ba7816bf", 16],
        "watched": ["rename", "new"],
        "served": [200, "hello /there", "ENETUNREACH"],
        "streamed": True,
    }
    assert last == "true sandrun number"


def test_bash_has_pipes_jobs_and_the_tools_of_debian(box: Box) -> None:
    assert said(run(box, "bash", "all.bash")) == [
        "100,99,98",
        "no difference",
        "through",
        "42",
        "b",
        "3 f",
        "x y",
        "Z",
        "3",
        "X y|z|end|",
        "600",
        "5000",
        "4",
        "256",
        "caught",
        "status 3",
        "timed out 124",
        "5",
        "locked",
        "/job",
        "X y",
        "z",
        "end",
        "more",
        "v 1970",
        "read 142",
    ]


def test_git_commits_merges_and_clones(box: Box) -> None:
    assert said(run(box, "sh", "git.sh")) == [
        "Merge branch 'side'", "first", "second", "side", "main", "side", "4",
        " 1 file changed, 1 insertion(+)", "a", "b", "1", "3", "2",
    ]  # fmt: skip


def test_make_builds_c_and_cpp_with_link_time_optimization(box: Box) -> None:
    sources = ("Makefile", "sum.c", "threads.c", "words.cpp")
    ran = run(box, "sh", "build.sh", *(f"project/{name}" for name in sources))
    assert said(ran)[-2:] == ["10 1", "3 36 thrown 41 2"]


def test_perl_has_threads_children_and_sockets(box: Box) -> None:
    assert said(run(box, "perl", "all.pl")) == [
        "threads 10 55",
        "from a fork",
        "from a shell",
        "3",
        "OPEN3",
        "ready 1",
        "connected",
        "kept",
        "alarm 1",
    ]
