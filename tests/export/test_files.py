# SPDX-License-Identifier: MIT
"""Files are replaced whole; what is no regular file is written to."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from strategies import sample_snapshot

from ometrics.export.files import LEFTOVER_SECONDS, replace_file

DOCUMENT = sample_snapshot().to_json()
OTHER = b"other\n" * 5000

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files")
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the document goes."""
    return tmp_path / "metrics.json"


def leftovers(directory: Path) -> list[str]:
    """Files in a directory beside `metrics.json`."""
    return sorted(p.name for p in directory.iterdir() if p.name != "metrics.json")


# --- Names, permissions, owners


def test_new_file(path: Path) -> None:
    """The file is the data, readable as the umask allows, and nothing is left."""
    before = os.umask(0o027)
    try:
        replace_file(path, DOCUMENT)
    finally:
        os.umask(before)

    assert DOCUMENT == path.read_bytes()
    assert 0o640 == stat.S_IMODE(path.stat().st_mode)
    assert [] == leftovers(path.parent)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, os.path.relpath])
def test_any_path(path: Path, kind: type) -> None:
    """Text, bytes, a `Path`, a relative name."""
    replace_file(kind(path), DOCUMENT)

    assert DOCUMENT == path.read_bytes()


@posix
@pytest.mark.parametrize("name", [b"m" * 255, b"\xff.json"])
def test_any_name(tmp_path: Path, name: bytes) -> None:
    """As long as the file system allows, and one that is no text."""
    path = os.fsencode(tmp_path) + b"/" + name
    for data in (OTHER, DOCUMENT):
        replace_file(path, data)

    assert DOCUMENT == Path(os.fsdecode(path)).read_bytes()


@posix
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o2640])
def test_replaced_file_keeps_its_permissions(path: Path, mode: int) -> None:
    """What somebody made private stays so."""
    path.write_text("old")
    path.chmod(mode)
    replace_file(path, DOCUMENT)

    assert mode == stat.S_IMODE(path.stat().st_mode)
    assert DOCUMENT == path.read_bytes()


@as_root
def test_replaced_file_keeps_its_owner(path: Path) -> None:
    """A service that runs as root does not take the file from its reader."""
    path.write_text("old")
    os.chown(path, 1234, 4321)
    path.chmod(0o640)
    replace_file(path, DOCUMENT)

    now = path.stat()
    assert (1234, 4321, 0o640) == (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode))


@as_root
def test_owner_that_cannot_be_kept(path: Path) -> None:
    """Who may not give files away still replaces one: it is then its own."""
    path.parent.chmod(0o777)
    for directory in (path.parent.parent, path.parent.parent.parent):
        directory.chmod(0o755)
    path.write_text("old")
    code = (
        "import os, sys\n"
        "from ometrics.export.files import replace_file\n"
        "os.setgid(4321); os.setuid(1234)\n"
        f"replace_file({str(path)!r}, b'new')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

    assert (b"new", 1234) == (path.read_bytes(), path.stat().st_uid)


@posix
def test_symbolic_link_stays_one(tmp_path: Path) -> None:
    """Its target is replaced, in the target's directory."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "metrics.json")
    replace_file(tmp_path / "link.json", DOCUMENT)

    assert (tmp_path / "link.json").is_symlink()
    assert DOCUMENT == (tmp_path / "real" / "metrics.json").read_bytes()


# --- What is no regular file


@posix
def test_pipe_is_written_to(path: Path) -> None:
    """A named pipe stays one and its reader gets more than the pipe holds."""
    os.mkfifo(path)
    data = DOCUMENT * 20
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    while True:
        try:
            replace_file(path, data)
        except OSError:  # the reader has not opened it yet
            continue
        break
    reader.join(10)

    assert [data] == read
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert [] == leftovers(path.parent)


@posix
def test_pipe_without_a_reader(path: Path) -> None:
    """An error at once: an export never waits for somebody to come and read."""
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"metrics\.json"):
        replace_file(path, DOCUMENT)


@as_root
def test_device_stays_a_device(path: Path) -> None:
    """Root can replace `/dev/null` for everybody, so it has to be told apart."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        path.write_bytes(b"")
    except PermissionError:
        pytest.skip("this container makes no devices")
    replace_file(path, DOCUMENT)

    assert stat.S_ISCHR(path.stat().st_mode)


EXPORT = """
import sys
from ometrics.export.files import replace_file
print("before", flush=True)
replace_file(sys.argv[1], b"document\\n")
print("after")
"""


@posix
@pytest.mark.parametrize("name", ["/dev/stdout", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output(tmp_path: Path, name: str, kind: str) -> None:
    """
    In its place among the rest of the output, be that a pipe or a file.

    Seen to fail without the look at standard output: the file held the document only.
    """
    if not Path("/dev/stdout").exists():
        pytest.skip("no /dev/stdout here")
    if name == "link":  # as container images do for log files
        name = str(tmp_path / "link")
        Path(name).symlink_to("/dev/stdout")
    out = tmp_path / "out"
    command = [sys.executable, "-c", EXPORT, name]
    if kind == "file":
        with out.open("wb") as file:
            subprocess.run(command, stdout=file, check=True)
        told = out.read_bytes()
    else:
        told = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout

    assert b"before\ndocument\nafter\n" == told


# --- Failures


def test_full_disk_keeps_the_old_file(path: Path) -> None:
    """
    The write ends in the middle: old content, no leftover, the error names the path.

    A limit of the file size stands for the full disk. Seen to fail when the target was
    written directly (it held 4,096 bytes of the new document) and, for the leftover,
    without the `unlink`.
    """
    resource = pytest.importorskip("resource")
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            replace_file(path, DOCUMENT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert str(path) == caught.value.filename
    assert "old" == path.read_text()
    assert [] == leftovers(path.parent)


def test_missing_directory_is_named(tmp_path: Path) -> None:
    """The error has the path that the user gave, and its usual type."""
    path = os.fsencode(tmp_path / "nowhere" / "metrics.json")
    with pytest.raises(FileNotFoundError) as caught:
        replace_file(path, DOCUMENT)

    assert path == caught.value.filename


def test_a_directory_is_in_the_way(path: Path) -> None:
    """Nothing is left beside it."""
    path.mkdir()
    with pytest.raises(OSError, match=r"metrics\.json"):
        replace_file(path, DOCUMENT)

    assert [] == leftovers(path.parent)


# --- Several writers


@posix
def test_only_old_leftovers_are_removed(path: Path) -> None:
    """
    What a killed writer left goes after an hour; everybody else's files stay.

    Seen to fail without the sweep (the first stays) and without the look at the age
    (the second goes, which may be another container's that is being written).
    """
    directory = path.parent
    old, young = (directory / f".ometrics-{c * 16}.tmp" for c in "ab")
    other = directory / ".ometrics-other.tmp"
    for file in (old, young, other):
        file.touch()
    for file in (old, other):
        past = file.stat().st_mtime - LEFTOVER_SECONDS - 60
        os.utime(file, (past, past))
    replace_file(path, DOCUMENT)

    assert sorted([young.name, other.name]) == leftovers(directory)


WRITE_OFTEN = """
import sys
from ometrics.export.files import replace_file
for _ in range(int(sys.argv[2])):
    replace_file(sys.argv[1], b"data")
"""


@posix
def test_writers_of_two_process_namespaces(path: Path) -> None:
    """
    Two containers export to one path on a shared volume: every export succeeds.

    Seen to fail when a temporary file of an unknown process id counted as abandoned.
    """
    unshare = shutil.which("unshare")
    if (
        unshare is None
        or subprocess.run(
            [unshare, "--pid", "--fork", "true"], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("no namespaces may be made here")
    writer = [sys.executable, "-c", WRITE_OFTEN, str(path), "300"]
    behind_a_shell = ["sh", "-c", '"$@"; exit $?', "sh", *writer]  # process 2, not 1
    writers = [
        subprocess.Popen([unshare, "--pid", "--fork", *command], stderr=subprocess.PIPE)
        for command in (writer, behind_a_shell)
    ]
    errors = [process.communicate(timeout=60)[1] for process in writers]

    assert [b"", b""] == errors
    assert [] == leftovers(path.parent)


@pytest.fixture
def writers(path: Path) -> Iterator[list[threading.Thread]]:
    """Two threads that write two documents in turn."""

    def write_often(data: bytes) -> None:
        for _ in range(50):
            replace_file(path, data)

    threads = [
        threading.Thread(target=write_often, args=(data,)) for data in (DOCUMENT, OTHER)
    ]
    yield threads
    for thread in threads:
        thread.join()


def test_readers_see_the_old_or_the_new_file(
    path: Path, writers: list[threading.Thread]
) -> None:
    """
    Two writers and a reader: every read is a whole document.

    Seen to fail when the target was written directly: the reader got a part of it.
    """
    replace_file(path, DOCUMENT)
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_bytes() in {DOCUMENT, OTHER}

    assert [] == leftovers(path.parent)
