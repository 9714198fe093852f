"""shell.js splits and quotes as Python's shlex, and as a real shell does."""

import json
import random
import shlex
import subprocess
from pathlib import Path
from typing import Any

SHELL = Path(__file__).parents[2] / "frontend/static/frontend/shell.js"
LETTERS = [
    "a",
    "b",
    " ",
    "\t",
    "'",
    '"',
    "\\",
    "ü",
    "\u3000",
    "😀",
    "-",
    "#",
    "\r",
    "x y",
    "''",
    '""',
]


def asked(texts: list[str], lists: list[list[str]]) -> Any:
    """[what split says of each text, what quote makes of each list]"""
    code = (
        f"import {{ split, quote }} from {json.dumps(str(SHELL))};"
        "const [texts, lists] = JSON.parse((await import('node:fs')).readFileSync(0));"
        "console.log(JSON.stringify([texts.map(split), lists.map(quote)]))"
    )
    done = subprocess.run(
        ["node", "--input-type=module", "-e", code],
        input=json.dumps([texts, lists]), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def drawn(seed: str, letters: list[str], count: int) -> list[str]:
    pick = random.Random(seed)
    return ["".join(pick.choices(letters, k=pick.randint(0, 12))) for _ in range(count)]


def test_five_thousand_texts_are_split_as_shlex_splits_them() -> None:
    texts = drawn("split", LETTERS, 5000)
    unfinished = 0
    for text, found in zip(texts, asked(texts, [])[0], strict=True):
        try:
            expected = shlex.split(text)
        except ValueError:
            unfinished += 1
            assert found["error"], text
        else:
            assert found == {"words": expected, "error": ""}, text
    assert 1000 < unfinished < 4000


def test_what_a_shell_takes_as_escapes_in_double_quotes_is_taken_so() -> None:
    # Where shlex keeps backslashes that a shell does not.
    letters = ["a", " ", '"', "\\$", "\\`", "\\\\", '\\"', "'", "\\\n", "\\a"]
    texts = drawn("escapes", letters, 600)
    script = ""
    complete = []
    for text, found in zip(texts, asked(texts, [])[0], strict=True):
        if not found["error"]:
            complete.append(found["words"])
            script += (
                f"printf '%s\\0' {text}\nprintf '\\1'\n" if found["words"] else "printf '\\1'\n"
            )
    done = subprocess.run(["sh"], input=script.encode(), capture_output=True, check=True)
    told = [one.decode().split("\0")[:-1] for one in done.stdout.split(b"\1")[:-1]]
    assert len(complete) > 150
    assert told == complete


def test_two_thousand_lists_are_quoted_as_shlex_quotes_them() -> None:
    pick = random.Random("quote")
    letters = [*LETTERS, "\n", "$", "`", "*", "!", "\x1b", "=", "@", "%", "/", "~", "_", "é"]
    lists = [drawn(str(number), letters, pick.randint(0, 4)) for number in range(2000)]
    quoted = asked([], lists)[1]
    assert quoted == [shlex.join(words) for words in lists]
    again = asked(quoted, [])[0]
    assert again == [{"words": words, "error": ""} for words in lists]
