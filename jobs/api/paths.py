"""What somebody may have meant who asks for a path that is not there."""

import difflib
import re

_PATHS = {
    "submit": "POST /submit",
    "run": "POST /run",
    "status": "GET /status/JOB_ID",
    "logs": "GET /logs/JOB_ID",
    "stream": "a WebSocket at /stream/JOB_ID, or GET /logs/JOB_ID?follow=1",
    "outputs": "GET /outputs/JOB_ID",
    "download": "GET /download/JOB_ID/PATH",
    "preview": "GET /preview/JOB_ID/PATH",
    "receipt": "GET /receipt/JOB_ID",
    "jobs": "GET /status/JOB_ID",
    "health": "GET /health",
    "stats": "GET /stats",
    "environments": "GET /environments",
    "openapi": "GET /openapi.json",
    "problems": "GET /problems",
}
_ALSO_CALLED = {
    "result": "outputs",
    "results": "outputs",
    "files": "outputs",
    "execute": "run",
    "exec": "run",
    "upload": "submit",
    "interpreters": "environments",
    "languages": "environments",
    "runtimes": "environments",
}
_PREFIX = re.compile(r"/+((api|v\d)/+)*")
_LETTERS = 20  # of a word that is compared
_ALIKE = 0.75


def meant(path: str) -> str:
    """A sentence for whoever asked for `path`; nothing of it is repeated."""
    words = _PREFIX.sub("", path.lower(), count=1).split("/", 2)
    word = "stream" if words[-1] == "stream" else words[0]
    word = _ALSO_CALLED.get(word, word)
    close = difflib.get_close_matches(word[:_LETTERS], _PATHS, 1, _ALIKE)
    if close:
        return f"Did you mean {_PATHS[close[0]]}?"
    return f"The first words of the API's paths are {', '.join(_PATHS)}."
