"""Statement: what is signed of a job that is over, as in-toto has it. Integers and texts only, so
that no reader of JSON rounds anything; docs/receipts.md says what each is.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from jobs.filetypes import type_of
from jobs.job import Ending, Job
from jobs.logs import STREAMS
from jobs.names import encoded
from sandbox.model import Output

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:sandrun:receipt:v1"

_OUTPUT_BYTES = 250  # about what an output is in a statement, beside its name


def work(job: Job, ending: Ending) -> int:
    """About how many bytes `write` has to look at."""
    outputs = ending.result.outputs.files if ending.result else ()
    return job.log.kept_bytes + sum(_OUTPUT_BYTES + 3 * len(output.path) for output in outputs)


def write(job: Job, ending: Ending, worker_id: str, walls: Mapping[str, object]) -> bytes:
    """What is true of `job` once it has ended so. Reads its whole log."""
    result = ending.result
    outputs = result.outputs.files if result else ()
    verdict, started = result.verdict if result else None, job.started
    feed = job.feed
    predicate = {
        "worker": worker_id,
        "job": {
            "id": job.id,
            "nonce": job.manifest.nonce or None,
            "created": int(job.created.wall),
            "started": int(started.wall) if started else None,
            "ended": int(ending.at.wall),
            "expires": int(ending.at.wall + job.ttl_seconds),
        },
        "input": {
            "sha256": job.hash,
            "stdin": {"bytes": feed.taken, "sha256": feed.sha256} if feed else None,
        },
        "environment": job.manifest.environment,
        "interpreter": {"name": job.terms.interpreter, "version": job.terms.version},
        "limits": job.terms.limits_in_integers(),
        "walls": walls if result else None,
        "verdict": {
            "status": ending.state,
            "reason": ending.reason,
            "exit_code": verdict.exit_code if verdict else None,
            "signal": verdict.signal if verdict else None,
            "stage": job.stage(result),
            "limits_hit": job.limits_hit(result),
            "error": ending.error,
        },
        "usage": ending.usage._asdict(),
        "logs": {
            stream: {"bytes": job.log.total(stream), "dropped": job.log.dropped(stream)}
            for stream in STREAMS
        },
        "outputs": {
            "bytes": sum(output.size for output in outputs),
            "files": len(outputs),
            "truncated": bool(result and result.outputs.truncated),
        },
        "warnings": job.warnings(result),
    }
    whole = {
        "_type": STATEMENT,
        "predicateType": PREDICATE,
        "subject": msgspec.Raw(_listed(_subject(job, outputs))),
        "predicate": predicate,
    }
    return msgspec.json.encode(whole, order="sorted")


def _listed(entries: Iterable[bytes]) -> bytearray:
    """A JSON list; of ten thousand entries no two are held beside it."""
    listed = bytearray(b"[")
    for entry in entries:
        listed += entry
        listed += b","
    listed[-1:] = b"]"
    return listed


def _subject(job: Job, outputs: Iterable[Output]) -> Iterator[bytes]:
    """Everything that came out, with its hash: both logs, and the outputs as they came."""
    for stream in sorted(STREAMS):
        kept = job.log.total(stream) - job.log.dropped(stream)
        yield _entry(f"logs/{stream}", job.log.digest(stream), {"bytes": kept})
    for output in outputs:
        about = {
            "bytes": output.size,
            "mode": f"{output.mode:04o}",
            "type": type_of(output.path),
        }
        yield _entry(f"outputs/{encoded(output.path)}", output.sha256, about)


def _entry(name: str, sha256: str, about: dict[str, object]) -> bytes:
    entry = {"annotations": about, "digest": {"sha256": sha256}, "name": name}
    return msgspec.json.encode(entry, order="sorted")
