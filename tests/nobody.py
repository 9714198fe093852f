"""A command as somebody without rights, who may enter the repository wherever it lies."""

import json
import sys
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[1]
_BECOME = """
import json, os, sys
from pathlib import Path
from sandbox import keeper, linux
linux.unshare(linux.CLONE_NEWNS)
linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
keeper.cover([Path(path) for path in json.loads(sys.argv[1])])
os.chdir("/")
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def as_nobody(*needed: Path) -> list[str]:
    """The beginning of its command line. `needed` are other folders that it must reach; of /tmp it
    sees nothing else."""
    paths = {_REPOSITORY, *map(Path, (sys.prefix, sys.base_prefix, sys.base_exec_prefix)), *needed}
    return [sys.executable, "-I", "-c", _BECOME, json.dumps(sorted(map(str, paths)))]
