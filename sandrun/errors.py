"""What can go wrong. A job that fails is no error: its Result says how, and `check=True` raises."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sandrun.result import Result

Kind = Literal[
    "not_a_receipt",  # malformed, of another type, or too large
    "no_key",  # the caller pinned none
    "bad_key",  # a key that no signature can be believed by
    "other_key",  # signed, it says, by somebody who was not pinned
    "signature",  # these bytes are not what a pinned key signed
    "worker",  # the statement names another worker than the one that signed it
    "job",
    "nonce",
    "differs",  # a file, a log or an answer is not what the receipt says
]


class SandrunError(Exception):
    """All of this package's. The message is a sentence for people."""

    _made_of: tuple[Any, ...] | None = None

    def __reduce__(self) -> Any:
        """Errors cross between processes."""
        return super().__reduce__() if self._made_of is None else (type(self), self._made_of)


class ConnectionFailed(SandrunError):
    """The server cannot be reached, or broke off; what was asked may have been done."""


class TlsFailed(ConnectionFailed):
    """Who answers cannot be trusted, or speaks no TLS. Not tried again."""


class WaitTimeout(SandrunError):
    """The job is not over within the seconds that were given to wait; it goes on."""

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(f"{job_id} was not over after {seconds:g} s; it goes on.")
        self.job_id = job_id
        self._made_of = job_id, seconds


class NotVerified(SandrunError):
    """A receipt does not prove what was asked of it. `kind` is for programs."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind: Kind = kind
        self._made_of = kind, sentence


class JobFailed(SandrunError):
    """With `check=True`: the job did not end with exit code 0. `result` says how."""

    def __init__(self, result: "Result") -> None:
        last = result.stderr.rstrip().rpartition("\n")[2]
        super().__init__(f"{result.told}{': ' if last else ''}{last[:500]}")
        self.result = result
        self._made_of = (result,)


class Refused(SandrunError):
    """The server said no. `status` is HTTP's, `reason` a word (docs/api.md has the list), `details`
    what helps, `errors` what is wrong where, `problem` its whole answer.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        sentence = _text(problem, "error") or _text(problem, "detail") or f"HTTP {status}"
        self.details = _text(problem, "details")
        super().__init__(f"{sentence.rstrip('.')}. {self.details}".strip())
        self.status = status
        self.reason = _text(problem, "reason")
        found = problem.get("errors")
        self.errors: Sequence[Mapping[str, Any]] = found if isinstance(found, list) else ()
        after = problem.get("retry_after")
        # Seconds after which it may be taken; None: the server has not said.
        self.retry_after = float(after) if isinstance(after, int | float) else None
        self.problem = problem
        self._made_of = status, dict(problem)


class InvalidJob(Refused):
    """The manifest or the upload is wrong, or too large."""


class RateLimited(Refused):
    """This client has its share, or the server all that it can take: ask in `retry_after` s."""


class JobNotFound(Refused):
    """It is forgotten, or there was none: nobody can tell which. Or it has no such file."""


class NotOwner(Refused):
    """Only who submitted the job may do that."""


def refusal(status: int, problem: Mapping[str, Any]) -> Refused:
    """The error that says what the server answered."""
    if status == 404:
        return JobNotFound(status, problem)
    if problem.get("reason") == "not_owner":
        return NotOwner(status, problem)
    if status in (429, 503):
        return RateLimited(status, problem)
    if status in (400, 413, 415, 422):
        return InvalidJob(status, problem)
    return Refused(status, problem)


def _text(problem: Mapping[str, Any], name: str) -> str:
    found = problem.get(name)
    return found if isinstance(found, str) else ""
