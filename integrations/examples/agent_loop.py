#!/usr/bin/env python3
"""An agent with one tool, which runs Python in a sandbox:

    SANDRUN_SERVER=http://localhost:8443 integrations/examples/agent_loop.py

No language model is asked: `scripted_model` plays its part, with the mistake that one would make.
Put in its place a function that sends `messages` and TOOL to a model and brings back what it says.
"""

from collections.abc import Callable
from typing import Any

import sandrun

TURNS = 8
SHOWN = 4000  # characters of each stream that a model is given to read
TOOL = {
    "name": "run_python",
    "description": "Run Python in a fresh sandbox without network; print what you want to see.",
    "input_schema": {
        "type": "object",
        "properties": {"code": {"type": "string"}},
        "required": ["code"],
    },
}

Message = dict[str, Any]
Model = Callable[[list[Message]], Message]


def scripted_model(messages: list[Message]) -> Message:
    """Says {"tool": arguments} to have the tool called, and {"text": ...} at the end."""
    last = messages[-1]
    if last["role"] == "user":
        return {"tool": {"code": "print(sum(n for n in range(10_000) if is_prime(n)))"}}
    if "NameError" in last["content"]:
        code = "is_prime = lambda n: n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))\n"
        return {"tool": {"code": code + "print(sum(n for n in range(10_000) if is_prime(n)))"}}
    answer = last["content"].partition("stdout:\n")[2].split()[0]
    return {"text": f"The primes below 10,000 add up to {answer}."}


def run_python(client: sandrun.Client, code: str) -> str:
    """What the model reads of it: a program that fails is something to learn from, no error."""
    try:
        result = client.run(code, interpreter="python3", timeout=20, download=False)
    except sandrun.SandrunError as error:
        return f"The sandbox could not be used: {error}"
    return f"{result.told}\nstdout:\n{cut(result.stdout)}\nstderr:\n{cut(result.stderr)}"


def cut(text: str) -> str:
    if len(text) <= SHOWN:
        return text
    dropped = len(text) - SHOWN
    return f"{text[: SHOWN // 2]}\n… {dropped} characters cut …\n{text[-SHOWN // 2 :]}"


def answer(question: str, model: Model) -> str:
    messages: list[Message] = [{"role": "user", "content": question}]
    with sandrun.Client(patience=60) as client:
        for _ in range(TURNS):
            said = model(messages)
            if "text" in said:
                return str(said["text"])
            print(f"--- the model runs:\n{said['tool']['code']}")
            told = run_python(client, said["tool"]["code"])
            print(f"--- and reads:\n{told}")
            messages += [{"role": "assistant", **said}, {"role": "tool", "content": told}]
    return f"No answer after {TURNS} turns."


if __name__ == "__main__":
    print(answer("What do the primes below 10,000 add up to?", scripted_model))
