"""The patterns of a manifest's `outputs`. Pure: no sandbox, no files."""

import random
import subprocess
import sys
import time

import pytest

from sandbox.globs import matcher

TAKES = [
    # a name in any folder
    ("*.png", "a.png"), ("*.png", "x/y/a.png"), ("result.txt", "result.txt"),
    ("result.txt", "deep/er/result.txt"), ("*", "a"), ("*", "a/b"), ("*", ".hidden"),
    ("?.c", "a.c"), ("[ab].c", "x/b.c"),
    # a slash ties it to the top
    ("out/*.png", "out/a.png"), ("./out/a", "out/a"), ("./a", "a"), ("out/*", "out/.hidden"),
    ("out/*/c", "out/b/c"), ("o?t/a", "out/a"),
    # folders
    ("out/", "out/a"), ("out/", "out/a/b/c"), ("o*/", "out/a"), ("out//", "out/a"),
    ("a/b/", "a/b/c"),
    # two stars
    ("**", "a"), ("**", "a/b/c"), ("out/**", "out/a"), ("out/**", "out/a/b"),
    ("**/a", "a"), ("**/a", "x/y/a"), ("a/**/b", "a/b"), ("a/**/b", "a/x/b"),
    ("a/**/b", "a/x/y/b"), ("**/x/**/y", "x/y"), ("**/x/**/y", "a/x/b/c/y"), ("a**", "a/b"),
    ("a/b**c", "a/b/x/c"), ("***", "a/b"), ("a/***/b", "a/x/y/b"), ("**/*.c", "x/a.c"),
    ("**/*.c", "a.c"), ("**/", "a/b"),
    # sets
    ("[a-c]x", "bx"), ("[!a]x", "bx"), ("[^a]x", "bx"), ("[]]x", "]x"), ("[!]]x", "ax"),
    ("[a-]x", "-x"), ("[-a]x", "-x"), ("[.]x", ".x"), ("[\\]x", "\\x"), ("[a-c-e]x", "-x"),
    ("[&&]x", "&x"), ("[~~]", "~"), ("[|]", "|"), ("[[]a", "[a"), ("[*]", "*"), ("[?]", "?"),
    # what only looks like an expression
    ("a.b", "a.b"), ("a+b", "a+b"), ("(a)", "(a)"), ("a|b", "a|b"), ("^a$", "^a$"),
    ("{a,b}", "{a,b}"), ("[a", "[a"), ("a]", "a]"), ("a\\d", "a\\d"), ("[]", "[]"), ("[!]", "[!]"),
    ("-", "-"),
    # names
    ("*", "a\nb"), ("**", "a\n/b\n"), ("?", "\n"), ("a?b", "a\nb"), ("ü*", "ünïcode"),
    ("*", "\udcff"), ("\udcff", "\udcff"), ("?", "日"), ("[!x]", "\n"), (" ", " "), ("*", "-rf"),
]  # fmt: skip

LEAVES = [
    ("*.png", "a.PNG"), ("*.png", "a.png.txt"), ("*.png", "a.png\n"), ("*.png", "a.png/b"),
    ("result.txt", "myresult.txt"), ("result.txt", "result.txt2"), ("result.txt", "result_txt"),
    ("?", ""), ("?.c", "ab.c"),
    ("out/*.png", "a.png"), ("out/*.png", "x/out/a.png"), ("out/*.png", "out/b/a.png"),
    ("out/*", "out/a/b"), ("o?t/a", "o/t/a"), ("a?b", "a/b"), ("a[!x]b", "a/b"),
    ("a[/]b", "a/b"), ("a[.-0]b", "a/b"),
    ("out/", "out"), ("out/", "x/out/a"), ("out", "out/a"), ("out/", "outer/a"),
    ("out/**", "out"), ("out/**", "outer/a"), ("**/a", "ba"), ("**/a", "x/ba"), ("a/**/b", "ab"),
    ("a/**/b", "a/xb"), ("a/**/b", "x/a/b"), ("**/*.c", "x/a.cc"),
    ("[a-c]x", "dx"), ("[!a]x", "ax"), ("[c-a]x", "bx"), ("[c-a]", "-"), ("[a-c-e]x", "dx"),
    ("a.b", "axb"), ("^a$", "a"), ("{a,b}", "a"), ("a|b", "a"),
    ("", "a"), ("/", "a"), ("/etc/passwd", "etc/passwd"), ("..", "a"), ("../*", "a"),
    ("~/*", "a"), ("é", "e\u0301"),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "path"), TAKES)
def test_a_pattern_takes(pattern: str, path: str) -> None:
    assert matcher([pattern])(path)


@pytest.mark.parametrize(("pattern", "path"), LEAVES)
def test_a_pattern_leaves(pattern: str, path: str) -> None:
    assert not matcher([pattern])(path)


def test_any_of_several_patterns_is_enough() -> None:
    wanted = matcher(["*.a", "out/"])
    assert wanted("x.a") and wanted("out/b") and not wanted("x.b")


def test_no_patterns_take_nothing() -> None:
    assert not matcher([])("a")


HARD = [
    ("*a" * 30 + "b", "a" * 255),
    ("*" * 200 + "b", "a" * 255),
    ("?*" * 50 + "b", "a" * 255),
    ("[a]*" * 50 + "b", "a" * 255),
    ("**/" * 30 + "b", "a/" * 64 + "c"),
    ("**/a/" * 20 + "b", "a/" * 64 + "c"),
    ("**a" * 30 + "b", "a" * 1000),
    ("x" + "**a*a" * 15 + "b", "x" + "a/a" * 300),
    ("*/" * 30 + "**/" + "*a" * 20 + "b", "a" * 50 + "/" + "a/" * 63 + "a" * 200),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(HARD)))
def test_no_pattern_takes_for_ever(case: int) -> None:
    # In a process of its own: a regular expression cannot be interrupted from within.
    pattern, path = HARD[case]
    code = f"from sandbox.globs import matcher\nprint(matcher([{pattern!r}])({path!r}))"
    started = time.monotonic()
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=5)
    assert answer.stdout == "False\n" and time.monotonic() - started < 5


@pytest.mark.parametrize("seed", range(5))
def test_the_meaning_is_that_of_the_plainest_matcher(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(2000):
        pattern = "x/" + "".join(dice.choice(["a", "b", "/", "*", "?", "**", "**/", "[!a]"])
                                 for _ in range(dice.randrange(1, 8)))  # fmt: skip
        path = "x/" + "".join(dice.choice("aab/") for _ in range(dice.randrange(1, 9)))
        if "//" in pattern or "//" in path or pattern.endswith("/") or path.endswith("/"):
            continue
        assert matcher([pattern])(path) == plain(pattern, path), (pattern, path)


def plain(pattern: str, path: str, begins: bool = False) -> bool:
    """By trying everything; `begins`: a name of the pattern begins here."""
    if not pattern:
        return not path
    if pattern.startswith("**"):
        rest = pattern.lstrip("*")
        if begins and rest.startswith("/"):
            places = [0] + [at + 1 for at, char in enumerate(path) if char == "/"]
            return any(plain(rest[1:], path[at:], True) for at in places)
        return any(plain(rest, path[at:]) for at in range(len(path) + 1))
    if pattern[0] == "*":
        room = len(path.partition("/")[0])
        return any(plain(pattern[1:], path[at:]) for at in range(room + 1))
    if not path:
        return False
    if pattern.startswith("[!a]"):
        return path[0] not in "a/" and plain(pattern[4:], path[1:])
    if pattern[0] == "?":
        return path[0] != "/" and plain(pattern[1:], path[1:])
    return pattern[0] == path[0] and plain(pattern[1:], path[1:], pattern[0] == "/")
