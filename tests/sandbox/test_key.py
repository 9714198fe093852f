"""The key file: made so that nobody else ever has it, and refused when somebody else may. Real
files, and keys that OpenSSL made."""

import base64
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nacl import bindings

from sandbox import key

KEYGEN = [sys.executable, "-I", "-m", "sandbox.key"]
SEED = bytes(range(32))


def openssl(*words: str) -> bytes:
    return subprocess.run(["openssl", *words], check=True, capture_output=True).stdout


def keygen(*words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*KEYGEN, *words], capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]


def loaded(path: Path | str) -> tuple[bytes, bytes]:
    fd = key.open_file(str(path))
    try:
        return key.read(fd)
    finally:
        os.close(fd)


def refused(path: Path | str) -> str:
    """The sentence, without a name and without anything of the key."""
    with pytest.raises(key.KeyRefused) as caught:
        loaded(path)
    return str(caught.value)


def pem(der: bytes, label: str = "PRIVATE KEY") -> bytes:
    text = base64.b64encode(der).decode()
    return f"-----BEGIN {label}-----\n{text}\n-----END {label}-----\n".encode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good key of the system before this one, as OpenSSL made it there."""
    path = tmp_path / "worker.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", str(path))
    assert path.stat().st_size == 119
    return path


def openssls_id(path: Path) -> str:
    """What the system before this one said: the end of the public key's DER."""
    der = openssl("pkey", "-in", str(path), "-pubout", "-outform", "DER")
    return base64.b64encode(der[-32:]).decode()


# --- loading -----------------------------------------------------------------------------------


def test_a_key_file_that_openssl_made_has_the_worker_id_that_it_always_had(file: Path) -> None:
    public, secret = loaded(file)
    assert key.worker_id(public) == openssls_id(file)
    assert secret[32:] == public
    assert keygen("--show", str(file)).stdout == openssls_id(file) + "\n"


@pytest.mark.parametrize("as_text", ["with text after it", "windows' lines", "bag attributes"])
def test_what_stands_around_the_key_does_not_matter(file: Path, as_text: str) -> None:
    expected, text = loaded(file), file.read_bytes()
    file.write_bytes(
        {
            "with text after it": openssl("pkey", "-in", str(file), "-text"),
            "windows' lines": text.replace(b"\n", b"\r\n"),
            "bag attributes": b"Bag Attributes: <No Attributes>\n" + text,
        }[as_text]
    )
    assert loaded(file) == expected


def test_a_key_with_its_public_key_attached_is_read_and_checked() -> None:
    public, secret = bindings.crypto_sign_seed_keypair(SEED)
    head = bytes.fromhex("020101300506032b657004220420") + SEED
    for last in (b"\x81\x21\0", b"\xa1\x23\x03\x21\0"):  # as the standard has it, and as some do
        whole = head + last + public
        assert key.parse(pem(b"\x30" + bytes([len(whole)]) + whole)) == (public, secret)
        other = head + last + bytes(32)
        with pytest.raises(key.KeyRefused, match="another's"):
            key.parse(pem(b"\x30" + bytes([len(other)]) + other))


@pytest.mark.parametrize(
    ("algorithm", "says"),
    [("rsa", "an RSA key"), ("ed448", "an Ed448 key"), ("x25519", "an X25519 key"),
     ("ec -pkeyopt ec_paramgen_curve:P-256", "an elliptic curve"), ("rsa-pss", "an RSA-PSS key")],
)  # fmt: skip
def test_a_key_of_another_kind_is_refused_by_name(
    tmp_path: Path, algorithm: str, says: str
) -> None:
    path = tmp_path / "other.pem"
    openssl("genpkey", "-algorithm", *algorithm.split(), "-out", str(path))
    assert says in refused(path) and "keygen" in refused(path)


def test_what_is_no_private_key_is_refused_with_what_it_is(file: Path) -> None:
    text = file.read_bytes()
    der = openssl("pkey", "-in", str(file), "-outform", "DER")
    cases = {
        openssl("pkey", "-in", str(file), "-aes256", "-passout", "pass:x"): "is encrypted",
        openssl("pkey", "-in", str(file), "-pubout"): "PUBLIC KEY, not a PRIVATE KEY",
        der: "is DER",
        pem(b"x", "OPENSSH PRIVATE KEY"): "holds OPENSSH PRIVATE KEY",
        pem(b"x", "CERTIFICATE"): "holds CERTIFICATE",
        b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n-----END RSA PRIVATE KEY-----\n":
            "is encrypted",
        text + text: "has 2 PEM blocks",
        text + pem(b"x", "CERTIFICATE"): "has 2 PEM blocks",
        text[:60]: "is cut off",
        text.replace(b"MC4C", b"MC4*"): "is damaged",
        pem(der + b"\0"): "is damaged",
        pem(der[:1] + b"\x84\xff\xff\xff\xff" + der[2:]): "is damaged",
        b"": "is no PEM key",
        os.urandom(119).replace(b"\x30", b"x"): "is no PEM key",
        text + b"\n" * 16384: "is too large",
    }  # fmt: skip
    for content, says in cases.items():
        file.write_bytes(content)
        assert says in refused(file), content


def test_no_part_of_a_key_makes_a_traceback_or_another_key() -> None:
    public, _ = bindings.crypto_sign_seed_keypair(SEED)
    der = bytes.fromhex("302e020100300506032b657004220420") + SEED
    assert key.parse(pem(der))[0] == public
    for length in range(len(der)):
        with pytest.raises(key.KeyRefused):
            key.parse(pem(der[:length]))
    for place in range(16):  # before the seed
        for bit in range(8):
            damaged = bytearray(der)
            damaged[place] ^= 1 << bit
            if (place, bit) != (4, 0):  # the version: both are valid
                with pytest.raises(key.KeyRefused):
                    key.parse(pem(bytes(damaged)))


def test_a_sentence_has_nothing_of_the_key_in_it(file: Path) -> None:
    lines = file.read_text().splitlines()
    for damage in (lines[1][:-4], lines[1] + "AAAA", lines[1][:30] + "*" + lines[1][31:]):
        file.write_text(f"{lines[0]}\n{damage}\n{lines[2]}\n")
        assert lines[1][20:30] not in keygen("--show", str(file)).stderr
        file.write_text(damage)
        assert lines[1][20:30] not in keygen("--show", str(file)).stderr


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777])
def test_a_key_that_others_may_read_or_change_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert "chmod 600" in refused(file) and f"{mode:04o}" in refused(file)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_for_its_owner_alone_is_taken(file: Path, mode: int) -> None:
    file.chmod(mode)
    loaded(file)


def test_a_key_of_another_user_is_refused_though_only_they_may_read_it(file: Path) -> None:
    os.chown(file, 65534, 0)
    assert "belongs to uid 65534" in refused(file)


def test_a_link_or_a_second_name_is_refused(file: Path) -> None:
    link, second = file.with_name("link"), file.with_name("second")
    link.symlink_to(file)
    assert "is a link" in refused(link)
    second.hardlink_to(file)
    assert "2 names" in refused(file)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    started = time.monotonic()
    for path in (fifo, tmp_path, "/dev/null", "/dev/zero", "/dev/tty0"):
        assert refused(path).startswith(("is no regular file", "cannot be opened"))
    assert time.monotonic() - started < 1
    assert "No such file" in refused(tmp_path / "none")


# --- making ------------------------------------------------------------------------------------


def test_keygen_makes_a_key_that_openssl_reads_and_prints_the_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "with space é.pem"
    done = keygen(str(path))
    assert done.returncode == 0 and not done.stderr
    id = openssls_id(path)
    assert done.stdout == f"✅ Saved worker key to: {path}\n   Worker ID: {id}\n"
    assert path.stat().st_size == 119
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_keys_are_different(tmp_path: Path) -> None:
    assert keygen(f"{tmp_path}/a").stdout[-45:] != keygen(f"{tmp_path}/b").stdout[-45:]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277, 0o777])
def test_whatever_the_umask_is_the_file_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "key"
    assert keygen(str(path), umask=umask).returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_is_made_new_and_closed_to_others_in_one_call(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    subprocess.run(
        ["strace", "-o", log, "-e", "trace=open,openat,openat2,creat,chmod,fchmod,fchmodat,fsync",
         *KEYGEN, f"{tmp_path}/key"], umask=0, check=True, capture_output=True,
    )  # fmt: skip
    calls = log.read_text().split(f'"{tmp_path}/key"', 1)[1].splitlines()
    assert re.match(r", (O_\w+\|?)+, 0600\) = \d", calls[0])
    assert {"O_CREAT", "O_EXCL", "O_NOFOLLOW"} <= set(re.findall(r"O_\w+", calls[0]))
    assert any(call.startswith("fsync") for call in calls)


def test_nothing_that_exists_is_overwritten_or_followed(file: Path) -> None:
    before = file.read_bytes()
    folder, link, dangling = (file.with_name(name) for name in ("folder", "link", "dangling"))
    folder.mkdir()
    link.symlink_to(file)
    dangling.symlink_to(file.with_name("elsewhere"))
    for path in (file, folder, link, dangling, Path("/dev/null")):
        done = keygen(str(path))
        assert done.returncode == 1 and not done.stdout
        assert re.fullmatch(r"sandrun keygen: .* exists already, .*\n", done.stderr)
    assert file.read_bytes() == before
    assert not file.with_name("elsewhere").exists()


def test_a_place_where_nothing_can_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, says in {
        f"{tmp_path}/none/key": "folder that does not exist",
        f"{tmp_path}/file/key": "Not a directory",
        "/proc/key": "",
        "/sys/key": "",
        f"{tmp_path}/{'k' * 300}": "too long",
        "": "folder that does not exist",
    }.items():
        done = keygen(path)
        assert done.returncode == 1 and says in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("options", ["size=4096,nr_inodes=9", "nr_inodes=1"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, options: str) -> None:
    script = f"""mount -t tmpfs -o {options} full "$1" || exit 9
        head -c 4096 /dev/zero > "$1/filler"; shift; "$@"; code=$?; ls "$0"; exit $code"""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, tmp_path, tmp_path, *KEYGEN, f"{tmp_path}/key"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "No space left" in done.stderr
    assert len([line for line in done.stderr.splitlines() if "keygen" in line]) == 1
    assert done.stdout.split() in (["filler"], [])


@pytest.mark.parametrize("signal", ["TERM", "INT", "HUP"])
def test_an_interrupted_keygen_leaves_nothing_behind(tmp_path: Path, signal: str) -> None:
    """The signal comes when the file is written and not yet on the disk."""
    done = subprocess.run(
        ["strace", "-o", "/dev/null", "-e", f"inject=fsync:signal={signal}",
         *KEYGEN, f"{tmp_path}/key"], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode > 128 and not done.stdout and "Traceback" not in done.stderr
    assert not os.listdir(tmp_path)


def test_where_nothing_can_be_printed_the_key_is_there_and_that_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >/dev/full', "-", *KEYGEN, f"{tmp_path}/key"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "is good" in done.stderr
    loaded(f"{tmp_path}/key")


def test_without_a_file_it_is_a_usage_error() -> None:
    for words in ([], ["--show"], ["a", "b"], ["--force", "a"]):
        assert keygen(*words).returncode == 2


def test_script_server_makes_a_key_too_and_needs_a_file_for_it(tmp_path: Path) -> None:
    server = [str(Path(__file__).resolve().parents[2] / "script" / "server")]
    path = tmp_path / "a key"
    for word in (["--generate-key", "a key"], ["--generate-key=another"]):
        done = subprocess.run([*server, *word], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done
        assert done.stdout.startswith("✅ Saved worker key to: a")
    assert openssls_id(path) == keygen("--show", str(path)).stdout.strip()
    for words in (["--generate-key"], ["--generate-key", "--port"], ["--generate-key="]):
        done = subprocess.run([*server, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2 and "needs a FILE" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a key", "another"]
