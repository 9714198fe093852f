"""The root that jobs see: made once, when the launcher starts, in a mount namespace of its own.

One small tmpfs with /dev, /etc and the empty mount points, /usr of the machine below it, all
read-only; then the launcher itself moves in. So a job's namespace is a copy of three mounts, and
no path of the machine is left that a child could name.
"""

import os
import shutil
import stat
from pathlib import Path

from sandbox import linux

WORK = "/job"
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
_LINKS = {
    "dev/fd": "/proc/self/fd",
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
    "dev/stderr": "/proc/self/fd/2",
    "var/tmp": "/tmp",
    "etc/mtab": "/proc/self/mounts",
}
_ETC = {
    "passwd": "root:x:0:0:root:/:/bin/false\nsandbox:x:1000:1000:sandbox:/tmp:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/:/bin/false\n",
    "group": "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandrun\n::1 localhost\n",
    "hostname": "sandrun\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
# Of the machine's own /etc only what programs in /usr link to: the linker's cache, the chosen
# alternatives (numpy finds its BLAS there), and configuration that runtimes read. Of PHP only the
# command line's: what its servers read can hold passwords.
_COPIED = (
    "ld.so.cache", "alternatives", "python3*", "java-*-openjdk", "perl", "mime.types", "R",
    "fonts", "matplotlibrc", "php/*/cli", "php/*/mods-available",
)  # fmt: skip


def build() -> None:
    """Make the root and move into it. The process must have one thread and no use for old paths."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    root = "/tmp"  # covered in our own namespace only
    linux.mount("sandrun-root", root, "tmpfs", linux.MS_NOSUID, "size=16m,mode=0755")
    _folders(root)
    _devices(root)
    _etc(root)
    _system(root)
    linux.mount("proc", f"{root}/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    os.chdir(root)
    linux.pivot_root(".", ".")  # the old root now lies over the new one
    linux.umount(".", linux.MNT_DETACH)
    os.chdir("/")
    # Not MS_BIND: the file system itself, so that no copy of the mount can be made writable.
    linux.mount("sandrun-root", "/", "", linux.MS_REMOUNT | linux.MS_RDONLY | linux.MS_NOSUID)


def _folders(root: str) -> None:
    for folder in ("dev", "dev/shm", "etc", "proc", "usr", "var", "tmp", WORK.lstrip("/")):
        os.mkdir(f"{root}/{folder}", 0o755)


def _devices(root: str) -> None:
    """Nodes of our own: a bind of the machine's would share its inodes with every job."""
    for name, (major, minor) in _DEVICES.items():
        path = f"{root}/dev/{name}"
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(path, 0o666)  # whatever the umask says
    for name, target in _LINKS.items():
        os.symlink(target, f"{root}/{name}")


def _etc(root: str) -> None:
    for name, text in _ETC.items():
        Path(f"{root}/etc/{name}").write_text(text)
    for pattern in _COPIED:
        for source in Path("/etc").glob(pattern):
            target = Path(f"{root}/etc") / source.relative_to("/etc")
            target.parent.mkdir(0o755, parents=True, exist_ok=True)
            _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    """Copied, never bound: mountinfo shows where a bind comes from. Only what anybody may read."""
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
    elif source.is_dir():
        target.mkdir(0o755)
        for entry in source.iterdir():
            _copy(entry, target / entry.name)
    elif source.is_file() and source.stat().st_mode & stat.S_IROTH:
        shutil.copyfile(source, target)
        target.chmod(0o644)


def _system(root: str) -> None:
    """/usr read-only, and /bin, /lib and their like as the machine has them."""
    linux.mount("/usr", f"{root}/usr", "", linux.MS_BIND | linux.MS_REC)
    linux.read_only(f"{root}/usr")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        source = Path("/", name)
        if source.is_symlink():
            os.symlink(os.readlink(source), f"{root}/{name}")
        elif source.is_dir():
            os.mkdir(f"{root}/{name}")
            linux.mount(str(source), f"{root}/{name}", "", linux.MS_BIND | linux.MS_REC)
            linux.read_only(f"{root}/{name}")
