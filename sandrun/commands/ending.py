"""`sandrun cancel` and `sandrun rm`: only for whoever submitted the job, or has its owner_token."""

from collections.abc import Callable, Sequence

from sandrun.client import Job
from sandrun.commands import tokens
from sandrun.commands.options import Parser, add_job, add_json, add_server
from sandrun.commands.server import connect
from sandrun.commands.terminal import Terminal, say
from sandrun.commands.watching import say_json
from sandrun.errors import JobNotFound, NotOwner, SandrunError


def parser() -> Parser:
    return _parser("cancel", "End jobs. What they have printed and made stays for a while.")


def rm_parser() -> Parser:
    return _parser("rm", "End jobs and have them forgotten, with all that they have made.")


def _parser(name: str, what: str) -> Parser:
    made = Parser(name, what, "The token is at hand for what was submitted from here.")
    add_job(made, many=True)
    made.add_argument("--token", metavar="TOKEN", help="the owner_token that came with the id")
    add_json(made)
    add_server(made)
    return made


def main(arguments: Sequence[str]) -> int:
    return _each(parser(), arguments, Job.cancel, "is over", forgotten=False)


def rm(arguments: Sequence[str]) -> int:
    return _each(rm_parser(), arguments, Job.delete, "is gone", forgotten=True)


def _each(
    made: Parser, arguments: Sequence[str], end: Callable[[Job], object], done: str, forgotten: bool
) -> int:
    asked = made.parse_args(arguments)
    terminal = Terminal()
    failed: SandrunError | None = None
    ended = []
    with connect(asked.server, terminal) as client:
        for name in asked.job:
            token = asked.token or tokens.find(client.server, name)
            try:
                end(client.job(name, token))
            except SandrunError as error:
                if failed:
                    terminal.warn(str(failed))
                failed = _told(name, token, error)
                gone = isinstance(error, JobNotFound)
            else:
                ended.append(name)
                terminal.tell(f"{name} {done}")
                gone = forgotten
            if gone:
                tokens.drop(name)
    if not failed and asked.json:
        say_json({"ended": ended})
    elif not asked.json:
        for name in ended:
            say(name)
    if failed:
        raise failed
    return 0


def _told(name: str, token: str | None, error: SandrunError) -> SandrunError:
    if isinstance(error, NotOwner) and token is None:
        return NotOwner(error.status, {
            **error.problem, "error": f"{name} was not submitted from here",
            "details": "Its owner_token ends it: --token TOKEN.",
        })  # fmt: skip
    return error
