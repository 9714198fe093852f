"""Trials: the real thing done, where the other checks only read: the filter, and one sandbox."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from sandbox.doctor.words import BAD, Check, Seen, good, needs_root
from sandbox.model import Command, Limits
from sandbox.runtimes import load

_PATIENCE = 0.8  # seconds for a runtime to say its version


def _filter(root: Path) -> Seen:
    """As the launcher builds it; needs no root."""
    try:
        from sandbox import privileges, seccomp

        privileges.check()
        size = len(seccomp.build()) // 8
    except (ImportError, OSError, RuntimeError) as error:
        return Seen(
            BAD, f"cannot be built: {error}", "No sandbox can be made.",
            "sudo script/setup (it installs libseccomp2 and builds python-prctl)",
        )  # fmt: skip
    return good(f"{size} instructions")


def _sandbox(root: Path) -> Seen:
    """One sandbox, made as the server makes them, in which all runtimes say their versions."""
    if os.geteuid() != 0:
        return needs_root("")
    commands = {name: runtime.version_command(Limits()) for name, runtime in load().items()}
    script = "\n".join(_probe(name, command) for name, command in commands.items())
    words = ["run", "--tasks", "256", "--timeout", "30", "--", "sh", "-c", script + "\nwait"]
    done = subprocess.run(
        [*_scope(), sys.executable, "-I", "-m", "sandbox", *words],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {"error": done.stderr.strip() or f"ended with {done.returncode}"}
    if "error" in answer or answer["reason"] != "exit":
        return Seen(
            BAD, f"none can be made: {answer.get('error', answer.get('reason'))}",
            "No job runs; the server refuses to start.",
            "The other findings that are bad say why; else the step is explained in "
            "sandbox/README.md.",
        )  # fmt: skip
    languages = sorted(map(_language, answer["stdout"].splitlines()))
    if not languages:
        return Seen(
            BAD, "made, but it can run no language", "Every job is refused.",
            "sudo script/runtimes, or install an interpreter below /usr",
        )  # fmt: skip
    return good("made; runs " + ", ".join(languages))


def _probe(name: str, command: Command) -> str:
    """Shell: in the background, its name and what it says first; its name alone if it is slow."""
    words = [*(f"{key}={value}" for key, value in command.env.items()), *command.steps[0]]
    return (
        f"(timeout {_PATIENCE} env {shlex.join(words)} >{name} 2>&1; "
        f"case $? in 0) echo {name} $(head -n 1 {name}) ;; 124) echo {name} ;; esac) &"
    )


def _language(line: str) -> str:
    """Its name and version, from the name and what it said of itself."""
    name, _, said = line.partition(" ")
    version = re.search(r"\d+(\.\d+)+", said)
    return f"{name} {version[0]}" if version else name


def _scope() -> list[str]:
    """As script/server: under systemd, a scope whose cgroups are ours."""
    if os.path.isdir("/run/systemd/system") and not os.environ.get("SANDRUN_SCOPE"):
        for folder in os.get_exec_path():
            if os.access(f"{folder}/systemd-run", os.X_OK):
                return [f"{folder}/systemd-run", "--scope", "--quiet", "--property=Delegate=yes"]
    return []


TRIALS = (Check(151, "filter", _filter), Check(152, "sandbox", _sandbox))
