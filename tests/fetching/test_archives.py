import gzip
import io
import os
import re
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fopro_lab.data import fetch as archives
from fopro_lab.data.fetch import UnsafeArchive, safe_name, unpack

GOOD = {"images/a.jpg": b"a" * 3000, "images/deep/b.jpg": b"b", "notes.txt": b""}
EVIL_NAMES = [
    "../a",
    "images/../../a",
    "..",
    "/etc/a",
    "//host/a",
    "C:/a",
    "c:a",
    "./C:/a",
    "..\\a",
    "images\\a",
    "a//b",
    "a\nb",
    "a" * 1001,
]


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as opened:
        for name, content in files.items():
            opened.writestr(zipfile.ZipInfo(name), content, method)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return path


def read_all(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def refuse(archive: Path, message: str, *, largest: int = 10**6, members: int = 100) -> None:
    """Check that the archive is refused and nothing of it is left, in the folder or above."""
    target = archive.parent / "out"
    target.mkdir()
    (target / "mine.txt").write_text("kept")
    before = read_all(archive.parent)
    with pytest.raises(UnsafeArchive, match=message):
        unpack(archive, target, largest=largest, members=members)
    assert read_all(archive.parent) == before
    assert os.listdir(target) == ["mine.txt"]


@pytest.mark.parametrize("kind", ["zip", "stored", "tar", "tar.gz"])
def test_unpack_gives_the_files(tmp_path, kind):
    path = tmp_path / "archive"  # its content tells what it is
    if kind in ("zip", "stored"):
        write_zip(path, GOOD, zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED)
    else:
        write_tar(path, GOOD, "w:gz" if kind == "tar.gz" else "w")
    names = unpack(path, tmp_path / "out", largest=3001, members=5)
    assert names == ["images", "notes.txt"]
    assert read_all(tmp_path / "out") == GOOD


def test_unpack_replaces_what_an_earlier_attempt_left(tmp_path):
    path = write_zip(tmp_path / "a.zip", GOOD)
    out = tmp_path / "out"
    (out / ".a.zip.unpacking" / "images").mkdir(parents=True)
    (out / ".a.zip.unpacking" / "stray.jpg").write_bytes(b"half")
    (out / "images").mkdir()
    (out / "images" / "old.jpg").write_bytes(b"old")
    unpack(path, out, largest=10**4, members=10)
    assert read_all(out) == GOOD


def test_unpack_takes_folders_and_dots(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as opened:
        for name in (".", "./empty"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            opened.addfile(info)
    assert unpack(path, tmp_path / "out", largest=1, members=5) == ["empty"]


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_unpack_refuses_names_that_lead_out(tmp_path, name):
    refuse(write_zip(tmp_path / "a.zip", {"fine.txt": b"1", name: b"2"}), "leads out of the folder")


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_unpack_refuses_names_that_lead_out_of_a_tar(tmp_path, name):
    refuse(write_tar(tmp_path / "a.tar", {"fine.txt": b"1", name: b"2"}), "leads out of the folder")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_unpack_refuses_links_and_devices_of_a_tar(tmp_path, kind):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as opened:
        info = tarfile.TarInfo("images")
        info.type, info.linkname = kind, "/etc"
        opened.addfile(info)
    refuse(path, r"^a.tar.gz: member 'images' is a link or a device; nothing of it was kept$")


@pytest.mark.parametrize("kind", [0o120777, 0o020666, 0o010666])
def test_unpack_refuses_links_and_devices_of_a_zip(tmp_path, kind):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as opened:
        info = zipfile.ZipInfo("images")
        info.external_attr = kind << 16
        opened.writestr(info, "/etc")
    refuse(path, r"^a.zip: member 'images' is a link or a device")


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize(
    "names", [("a.txt", "A.TXT"), ("a", "a/b"), ("a/b", "a"), ("./a.txt", "a.txt")]
)
def test_unpack_refuses_a_name_twice(tmp_path, write, names):
    refuse(write(tmp_path / "a", dict.fromkeys(names, b"1")), "comes twice")


def test_unpack_refuses_what_declares_too_much(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a": bytes(600_000), "b": bytes(600_000)})
    assert path.stat().st_size < 3000
    refuse(path, r"^a.zip: declares more than 1000000 bytes")


def test_unpack_refuses_what_declares_too_much_in_a_tar(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz", {"a": bytes(1_200_000)}, "w:gz")
    refuse(path, r"^a.tar.gz: declares more than 1000000 bytes")


def test_unpack_refuses_too_many_members(tmp_path):
    many = {f"d{number}/a": b"" for number in range(51)}  # and their folders
    refuse(write_zip(tmp_path / "a.zip", many), r"holds more than 100 files and folders")


def test_unpack_refuses_a_zip_that_lies_about_sizes(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a": bytes(900_000)})
    raw = path.read_bytes()
    assert raw.count(struct.pack("<I", 900_000)) == 2  # before the content and in the directory
    path.write_bytes(raw.replace(struct.pack("<I", 900_000), struct.pack("<I", 10)))
    refuse(path, r"^a.zip: ")


@pytest.mark.parametrize(
    ("content", "message"), [(b"1234", "is larger than declared"), (b"12", "is shorter than decl")]
)
def test_what_comes_out_is_counted_whatever_the_library_lets_through(tmp_path, content, message):
    register = archives._Register(largest=100, members=1)
    with pytest.raises(UnsafeArchive, match=f"member 'a' {message}"):
        register.write(archives.Member("a", 3, False), io.BytesIO(content), tmp_path)


def test_unpack_refuses_a_tar_that_hides_a_bomb_in_its_headers(tmp_path):
    """A header of 20 MB declares nothing that is unpacked, yet it would fill the memory."""
    path = tmp_path / "a.tar.gz"
    info = tarfile.TarInfo("a" * 20_000_000)
    with gzip.open(path, "wb") as stream:
        stream.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    refuse(path, r"^a.tar.gz: unpacks to more than it may", largest=1000)


def test_unpack_refuses_an_encrypted_zip(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a": b"secret"}, zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(raw)
    refuse(path, "is encrypted")


@pytest.mark.parametrize("kept", [10, 1000, -30])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_unpack_refuses_a_truncated_archive(tmp_path, write, kept):
    path = write(tmp_path / "a", {"a.jpg": os.urandom(20_000)})
    path.write_bytes(path.read_bytes()[: 5000 if write is write_tar and kept < 0 else kept])
    refuse(path, r"^a: ")


def test_unpack_refuses_a_flipped_byte(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.jpg": os.urandom(20_000)}, zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    raw[10_000] ^= 1
    path.write_bytes(raw)
    refuse(path, r"^a.zip: a damaged archive, or none \(Bad CRC-32")


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", b"\x1f\x8b rubbish", bytes(99)]
)
def test_unpack_refuses_what_is_no_archive(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    refuse(tmp_path / "a.zip", r"^a.zip: ")


def test_unpack_refuses_an_archive_of_nothing(tmp_path):
    refuse(write_zip(tmp_path / "a.zip", {}), r"^a.zip: holds nothing")


names = st.text(st.sampled_from(["a", "b", ".", "/", "\\", ":", "\0", "C", "é"]), min_size=1)


@settings(max_examples=150, deadline=None)
@given(name=names)
def test_a_safe_name_stays_below_the_folder(name):
    try:
        safe = safe_name(name)
    except UnsafeArchive:
        return
    path = os.path.normpath(os.path.join("/target", safe))
    assert not re.match("[A-Za-z]:", safe)
    assert path == "/target" or path.startswith("/target/")
    assert "\\" not in safe
    assert safe == "" or safe_name(safe) == safe


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unpack_tells_damage_of_every_method_in_one_line(tmp_path, method):
    archive = write_zip(tmp_path / "a.zip", {"a": bytes(range(256)) * 40}, method)
    content = bytearray(archive.read_bytes())
    content[40:60] = bytes(20)
    archive.write_bytes(content)
    refuse(archive, "a damaged archive, or none")


def test_unpack_leaves_behind_what_was_not_asked_for(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/fetched.json").write_bytes(b"ours")
    archive = write_zip(tmp_path / "a.zip", {"images/a.jpg": b"a", "fetched.json": b"theirs"})
    names = unpack(archive, tmp_path / "out", largest=100, members=9, only=("images",))
    assert names == ["images"]
    assert read_all(tmp_path / "out") == {"fetched.json": b"ours", "images/a.jpg": b"a"}
