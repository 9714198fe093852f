"""The command line, installed as .venv/bin/sandrun. Each command is told by its own --help."""

import argparse
import os
import sys

_COMMANDS = {
    "doctor": ("sandbox.doctor", "say what this machine lacks for running jobs"),
    "keygen": ("sandbox.key", "make the key with which a worker signs its receipts"),
    "verify": ("sandrun.verify", "check a receipt, and what was downloaded with it"),
}


def main() -> None:
    """Become the command that was named; what follows the name is its own to read."""
    told = "\n".join(f"  {name:10} {what}" for name, (_, what) in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="sandrun", allow_abbrev=False, epilog=f"commands:\n{told}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("command", choices=_COMMANDS)
    named = parser.parse_args(sys.argv[1:2]).command
    # Another process: this package imports no other, so that a client can have it alone.
    os.execv(sys.executable, [sys.executable, "-I", "-m", _COMMANDS[named][0], *sys.argv[2:]])


if __name__ == "__main__":
    main()
