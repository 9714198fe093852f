"""The bodies that clients send, with the bounds of manifest.py and Config."""

import msgspec

from jobs import manifest
from jobs.api.openapi.shapes import (
    BINARY,
    NULL,
    TEXT,
    WORD,
    Schema,
    array,
    either,
    record,
    ref,
    table,
    words,
)
from jobs.conf import Config


def manifest_of(config: Config, names: tuple[str, ...]) -> Schema:
    """The Struct that manifest.read converts to, with what `settle` checks beside it."""
    _, known = msgspec.json.schema_components((manifest.Asked,), ref_template="{name}")
    properties = known["Asked"]["properties"]
    del properties["warnings"]  # ours to say
    timeout, memory = config.timeout_seconds, config.memory_mb
    bounds: dict[str, Schema] = {
        "entrypoint": WORD,
        "interpreter": words(*names),
        "environment": either(words(*names, "", "default"), NULL),
        "args": array(WORD, maxItems=manifest.ARGUMENTS),
        "env": {
            "type": "object",
            "additionalProperties": WORD,
            "propertyNames": {
                "pattern": f"^(?!({manifest.ENV_REFUSED})$){manifest.ENV_NAME}$",
            },
            "maxProperties": manifest.ARGUMENTS,
        },
        "stdin": WORD,
        "outputs": array(
            {"type": "string", "pattern": _INSIDE, "maxLength": manifest.PATH_BYTES},
            maxItems=manifest.PATTERNS,
        ),
        "timeout": _within(1, timeout, min(manifest.TIMEOUT_SECONDS, timeout)),
        "memory_mb": _within(manifest.MIN_MEMORY_MB, memory, min(manifest.MEMORY_MB, memory)),
        "cpu_seconds": {"type": "number", "minimum": manifest.MIN_CPU_SECONDS, "maximum": timeout},
        "ttl": _within(1, config.ttl_seconds, config.ttl_seconds),
    }
    return {
        "type": "object",
        "properties": {
            name: {**schema, **bounds.get(name, {}), "description": _SAYS.get(name, "")}
            for name, schema in properties.items()
        },
        "additionalProperties": False,
    }


# A path below the work directory, which may begin with "./".
_INSIDE = r"^(?!(\./)?/)(?!\./$)(?!([^\u0000]*/)?\.\.(/|$))[^\u0000]+$"


def _within(low: int, high: int, unset: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high, "default": unset}


_SAYS = {
    "entrypoint": "A path in the upload. Without it: main.py or another usual name, or the only "
    "file.",
    "interpreter": "Exactly a name or alias from /environments. Without it: by the extension.",
    "environment": "The same, under an earlier name.",
    "args": "What follows the program's name; with env at most "
    f"{manifest.ARGUMENT_BYTES // 1024} KiB.",
    "env": "Environment variables.",
    "stdin": "What the program reads from its standard input.",
    "stdin_live": "More is sent to it while it runs; it ends when its owner says so.",
    "outputs": "Patterns (`*`, `**`, `?`, `[]`; `results/` is a whole folder). Without them: every "
    "file that the job makes or changes.",
    "timeout": "Seconds until the job is ended.",
    "memory_mb": "Megabytes for all processes and all files together.",
    "cpu_seconds": "CPU time after which the job is ended; without it no limit beside timeout.",
    "ttl": "Seconds from the job's end until it is forgotten.",
    "burn_after_read": "Forgotten sooner: as soon as its log was read to the end and every output "
    "was downloaded.",
    "nonce": "Comes back in the receipt, which so belongs to this submission and no other.",
}

UPLOAD: Schema = {
    "type": "object",
    "properties": {
        "files": {
            **table(
                either(
                    TEXT,
                    {
                        **record({"base64": {"type": "string", "contentEncoding": "base64"}}),
                        "additionalProperties": False,
                    },
                )
            ),
            "minProperties": 1,
            "description": "Contents by path: text, or bytes as base64.",
        },
        "manifest": either(ref("Manifest"), NULL),
    },
    "required": ["files"],
    "additionalProperties": False,
}
FORM: Schema = {
    "type": "object",
    "properties": {
        "files": array(
            BINARY,
            minItems=1,
            description="Parts with file names: one archive (.tar.gz, .tgz, .tar, .zip), or loose "
            "files, whose names may have folders.",
        ),
        "manifest": ref("Manifest"),
    },
    "required": ["files"],
}
