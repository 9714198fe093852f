"""Debian 13's Python 3.13 with numpy, pandas and matplotlib, for machines whose own is older:
packages that apt fetches into a folder of ours and checks against Debian's key, never installed. A
job brings what it needs of them in its bundle, and with it the loader and libc of Debian 13.
"""

from __future__ import annotations

import io
import os
import platform
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

from sandbox import channel
from sandbox.model import Bundle, Member

SUITE, VERSION = "trixie", "3.13"
PACKAGES = f"python{VERSION}-minimal libpython{VERSION}-stdlib python3-pandas python3-matplotlib"
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CACHE = Path(__file__).parents[2] / ".venv" / f"python{VERSION}-{platform.machine()}.tar"
FOLDER = "python"  # in the bundle
PROGRAM = f"/job/{FOLDER}/bin/python{VERSION}"

# What is taken of the unpacked packages, and what of that no program of the tests needs.
MODULES = (
    "PIL contourpy cycler dateutil kiwisolver matplotlib mpl_toolkits numpy packaging "
    "pandas pyparsing pytz six"
).split()
TAKEN = re.compile(
    rf"usr/(?:lib/(python{VERSION}/.*|python3/dist-packages/(?:{'|'.join(MODULES)})(?:[/.].*)?)"
    r"|lib/[^/]+-linux-gnu/(?:blas/|lapack/)?(lib[^/]+\.so[^/]*|ld-linux[^/]+)"
    rf"|share/matplotlib/mpl-data/(.*)|(bin/python{VERSION}))|etc/(matplotlibrc)"
)
LEFT = re.compile(
    r"/(tests?|idlelib|tkinter|pydoc_data|lib2to3|ensurepip|turtledemo|sphinxext|web_backend)/"
    r"|lib(X|tk|tcl|glib|gio|gtk|wayland|systemd|gcrypt|icu|db|xml2|xslt|nss|LLVM|dpkg)"
)
# Of the files in the cache, what none but science imports or links to.
SCIENCE = re.compile(
    r"lib/python3/"
    r"|so/lib(?!(c|m|z|dl|rt|util|pthread|expat|ssl|crypto|ffi|bz2|lzma|zstd|uuid|sqlite3|gcc_s)[.-])"
)

# Multiprocessing starts sys.executable again, which must be this and not the loader.
WRAPPER = """#!/bin/sh
here=${0%/bin/*}
export PYTHONPATH="$here/lib/python3/dist-packages"
export MATPLOTLIBRC="$PYTHONPATH/matplotlib/mpl-data"
exec "$here"/so/ld-linux-* --argv0 "$0" --library-path "$here/so" "$here/bin/real" "$@"
"""


class Unreachable(Exception):
    """This machine's apt knows no archive of Debian."""


def bundle(program: str, science: bool) -> Bundle:
    """The Python, with numpy and its like or without, and main.py. Fetched once."""
    if not CACHE.exists():
        fresh = CACHE.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(_packed())
        fresh.rename(CACHE)
    files = {"main.py": (program.encode(), 0o644)}
    with tarfile.open(CACHE) as cached:
        for member in cached:
            if science or not SCIENCE.match(member.name):
                files[f"{FOLDER}/{member.name}"] = _content(cached, member), member.mode
    contents = b"".join(content for content, _ in files.values())
    members = (Member(path, len(c), 10**18, mode, "") for path, (c, mode) in files.items())
    return Bundle("loose", channel.memfd("bundle", contents), tuple(members))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    reader = tar.extractfile(member)
    assert reader
    return reader.read()


def _mirror() -> str:
    """Where this machine gets Debian's packages from."""
    form = "$(IDENTIFIER) $(ORIGIN) $(COMPONENT) $(RELEASE) $(REPO_URI)"
    lines = subprocess.check_output(["apt-get", "indextargets", "--format", form], text=True)
    for line in lines.splitlines():
        kind, origin, component, release, *uri = line.split()
        if (kind, origin, component) == ("Packages", "Debian", "main") and "-" not in release:
            return uri[0]
    raise Unreachable("apt of this machine knows no archive of Debian")


def _packed() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("parts", "preferences", "state/lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        (folder / "state/status").touch()
        (folder / "parts/of.sources").write_text(
            f"Types: deb\nURIs: {_mirror()}\nSuites: {SUITE}\nComponents: main\nSigned-By: {KEYS}\n"
        )
        settings = {
            "Dir::Etc::sourcelist": "/dev/null", "Dir::Etc::sourceparts": folder / "parts",
            "Dir::Etc::preferencesparts": folder / "preferences", "Dir::State": folder / "state",
            "Dir::State::status": folder / "state/status", "Dir::Cache": folder / "cache",
            "APT::Install-Recommends": "0", "APT::Sandbox::User": "root",
        }  # fmt: skip
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
        subprocess.run([*apt, "update"], check=True)
        command = [*apt, "install", "--yes", "--download-only", *PACKAGES.split()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        files: dict[str, tuple[bytes, int]] = {}
        for package in sorted((folder / "cache/archives").glob("*.deb")):
            _take(package, files)
        files["bin/python" + VERSION] = (WRAPPER.encode(), 0o755)
        root = folder / "root"
        for path, (content, mode) in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
            (root / path).chmod(mode)
        _compile(root)
        with io.BytesIO() as made:
            with tarfile.open(fileobj=made, mode="w") as tar:
                for file in sorted(file for file in root.rglob("*") if file.is_file()):
                    tar.add(file, str(file.relative_to(root)))
            return made.getvalue()


def _compile(root: Path) -> None:
    """Bytecode, as an installation would make it: else every start compiles its modules anew."""
    how = ["-q", "-j2", "--invalidation-mode", "unchecked-hash"]
    python = root / "bin" / f"python{VERSION}"
    folders = [root / "lib" / f"python{VERSION}", root / "lib/python3/dist-packages"]
    # Its own Python has to do it. Not every file of a package need be valid Python.
    subprocess.run([python, "-m", "compileall", *how, *folders], stdout=subprocess.DEVNULL)


def _take(package: Path, files: dict[str, tuple[bytes, int]]) -> None:
    """Adds what is wanted of a package. A job brings no links, so a library of which there is
    libx.so.1.2 and a link libx.so.1 to it comes under the name that programs ask for."""
    links = {}
    command = ["dpkg-deb", "--fsys-tarfile", package]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as members,
    ):
        for member in members:
            found = TAKEN.fullmatch(member.name.removeprefix("./"))
            if not found or LEFT.search("/" + found[0]):
                continue
            module, library, data, program, settings = found.groups()
            path = "bin/real" if program else f"so/{library}" if library else f"lib/{module}"
            if data or settings:
                path = f"lib/python3/dist-packages/matplotlib/mpl-data/{data or settings}"
            if member.issym() and library:
                links[path] = f"so/{os.path.basename(member.linkname)}"
            elif member.isreg():
                files[path] = _content(members, member), 0o755 if member.mode & 0o100 else 0o644
    assert unpacking.returncode == 0, package
    for target in set(links.values()) & set(files):
        content_and_mode = files.pop(target)
        files.update((name, content_and_mode) for name in links if links[name] == target)
