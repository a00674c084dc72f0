import errno
import hashlib
import io
import json
import os
import random
import re
import shutil
import socket
import struct
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from fopro_lab.data import fetch as fetching
from fopro_lab.data.fetch import (
    ResumingDownloader,
    fetch,
    fetched_place,
    find_source,
    medmnist_facts,
    source_names,
    unpack_zip,
)
from fopro_lab.errors import WorkError
from tests.conftest import fails, refuses
from tests.data.publisher import (
    ISIC_IDS,
    STALL,
    Publisher,
    isic2019_files,
    medmnist_npz,
    open_publisher,
    zipped,
)

ARCHIVE = "ISIC_2019_Training_Input.zip"
CONTENT = random.Random(0).randbytes(100_000)
MANY = zipped({f"ISIC_2019_Training_Input/{n}.jpg": CONTENT[n : n + 3000] for n in range(60)})


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with open_publisher() as opened:
        yield opened


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's fetched data and proxies out of the tests, and waste no time."""
    monkeypatch.setenv("FOPRO_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("FOPRO_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(fetching, "PAUSE", 0.01)
    monkeypatch.setattr(fetching, "ATTEMPTS", 3)
    monkeypatch.setattr(fetching, "BLOCK", 1000)
    monkeypatch.setattr(fetching, "TIMEOUT", (2.0, STALL / 2))
    return tmp_path / "data"


def read_all(folder: Path) -> dict[str, bytes]:
    """Return the data below a folder, without the records beside it."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in ("fetched.json", "SOURCE.txt")
    }


# What is known of the publishers.


def test_every_source_is_described_addressed_and_pinned():
    for name in source_names():
        source = find_source(name)
        assert source.name == name and source.home.startswith("https://")
        assert source.licence and source.citation
        for file in source.files:
            assert file.url.startswith("https://")
            assert re.fullmatch(r"(sha256:\w{64}|md5:(\w{32}|a04e12f8))?", file.known)
            assert bool(file.unpacked) == bool(file.holds)
            assert file.size <= file.unpacked or not file.unpacked
    assert len({file.name for file in find_source("fopro-splits").files}) == 45
    assert len({file.known for file in find_source("monica-splits").files}) == 18
    for facts in medmnist_facts().values():
        assert set(facts["md5"]) == {"28", "64", "128", "224"}
        assert len(set(facts["classes"])) == len(facts["classes"]) > 1
    (file,) = find_source("medmnist:derma-64").files
    assert file.url == "https://zenodo.org/records/10519652/files/dermamnist_64.npz?download=1"


def test_fetch_refuses_wrong_input():
    refuses(r"^source: expected medmnist: with one of path, derma, ", fetch, "medmnist:derma-65")
    refuses(r"got 'hyperkvasr'; did you mean 'hyperkvasir'\?", fetch, "hyperkvasr")
    refuses(r"^mirror: expected an address, http:// or", fetch, "isic2019", mirror="my/disk")


# Downloading: whatever the server does, the bytes are right or one line says why not.


def download(publisher: Publisher, folder: Path, **options) -> bytes:
    publisher.files.setdefault("a.bin", CONTENT)
    out = folder / "out"
    out.touch()
    downloader = ResumingDownloader(folder / "a.part", label="a.bin", **options)
    downloader(publisher.url("a.bin"), str(out))
    return out.read_bytes()


def test_a_cut_download_continues_where_it_was_cut(publisher, tmp_path):
    publisher.cut_after = 30_000
    assert download(publisher, tmp_path) == CONTENT
    spans = [span for _, span in publisher.requested]
    assert spans == ["", "bytes=30000-", "bytes=60000-", "bytes=90000-"]  # not one byte twice
    assert os.listdir(tmp_path) == ["out"]


def test_a_cut_download_starts_over_where_it_cannot_be_continued(publisher, tmp_path):
    publisher.ranges, publisher.cut_after, publisher.cuts = False, 30_000, 1
    assert download(publisher, tmp_path) == CONTENT


@pytest.mark.parametrize("length", [9000, 60_000])
def test_a_changed_file_is_not_glued_to_the_old_part(publisher, own_place, length):
    publisher.serve("isic2019", isic2019_files() | {ARCHIVE: MANY})
    publisher.cut_after, publisher.cuts, publisher.ranges = 30_000, 9, False
    with pytest.raises(WorkError, match=r", 3 times in a row; 30.0 kB are kept"):
        fetch("isic2019", mirror=publisher.address, progress=False)
    publisher.cuts, publisher.ranges = 0, True
    changed = zipped({f"ISIC_2019_Training_Input/{n}.jpg": CONTENT[n:length] for n in range(3)})
    publisher.serve("isic2019", {ARCHIVE: changed})
    with pytest.raises(WorkError, match=r"^ISIC_2019_Training_Input.zip: damaged, or no zip arc"):
        fetch("isic2019", mirror=publisher.address, progress=False)
    place = fetch("isic2019", mirror=publisher.address, progress=False)
    assert (place / "ISIC_2019_Training_Input/2.jpg").read_bytes() == CONTENT[2:length]


def test_a_stalling_server_is_reported_and_what_came_is_kept(publisher, tmp_path):
    publisher.stall_after, publisher.ranges = 40_000, False
    fails(r"^a.bin: Read timed out, 3 times in a row; 40.0 kB", download, publisher, tmp_path)
    publisher.stall_after, publisher.ranges = -1, True
    publisher.requested.clear()
    assert download(publisher, tmp_path) == CONTENT
    assert publisher.requested == [("a.bin", "bytes=40000-")]


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(publisher, tmp_path):
    publisher.statuses = [503, 429]
    assert download(publisher, tmp_path) == CONTENT
    publisher.statuses = [500] * 3
    fails(r"^a.bin: .*, 3 times in a row", download, publisher, tmp_path)
    publisher.requested.clear()
    publisher.statuses = [404]
    fails(r"^a.bin: .*/a.bin, 1 times in a row", download, publisher, tmp_path)
    assert len(publisher.requested) == 1


def test_no_connection_and_a_redirect_from_https_to_http_are_one_line(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        with pytest.raises(WorkError, match=r"^a.bin: .*refused, 3 times in a row; "):
            download(Publisher(f"http://127.0.0.1:{taken.getsockname()[1]}"), tmp_path)
    fails(r"^a.bin: .*http:///a.bin", download, Publisher("http://"), tmp_path)
    answer = requests.Response()
    answer.status_code, answer.url, answer.raw = 200, "http://127.0.0.1/a.bin", io.BytesIO()
    monkeypatch.setattr(requests, "get", lambda *_, **__: answer)
    fails(r"^a.bin: expected https, was sent", download, Publisher("https://127.0.0.1"), tmp_path)
    assert not (tmp_path / "a.part").exists()


# Unpacking: a bad archive is refused in one line, and nothing of it stays.

GOOD = {"images/a.jpg": b"a" * 3000, "images/deep/b.jpg": b"b", "labels.npy": b"1", "more.txt": b""}
HOLDS = ("images", "labels.npy")


def test_unpack_zip_replaces_what_it_must_hold_and_nothing_else(tmp_path):
    evil = {name: b"theirs" for name in ("../a", "images/../../b", "/etc/a", "C:/a", "..\\a")}
    link = zipfile.ZipInfo("images/link")
    link.external_attr = 0o120777 << 16
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(GOOD | {"fetched.json": b"theirs", link: b"/etc"} | evil))
    out = tmp_path / "out"
    for name in (".a.zip.unpacking/images/stray.jpg", "images/old.jpg", "mine.txt"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"old")
    unpack_zip(path, out, largest=10**4, holds=HOLDS)
    found = read_all(out)
    assert found.pop("mine.txt") == b"old" and found.pop("images/link") == b"/etc"  # a plain file
    found.pop("images/b", None)
    assert found == {name: content for name, content in GOOD.items() if name != "more.txt"}
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "out"] and not (out / "fetched.json").exists()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("flipped", "damaged, or no zip archive: Bad CRC-32"),
        ("cut", "damaged, or no zip archive: File is not a zip file"),
        ("larger than it says", "damaged, or no zip archive: "),
        ("too large", "declares more than 10000 bytes"),
        ("another", "expected it to hold images, labels.npy"),
    ],
)
def test_unpack_zip_refuses(tmp_path, how, message):
    raw = zipped({"a.jpg": CONTENT[: 90_000 if how == "too large" else 9000]})
    if how == "flipped":
        raw = raw[:5000] + bytes([raw[5000] ^ 1]) + raw[5001:]
    elif how == "larger than it says":
        raw = raw.replace(struct.pack("<I", 9000), struct.pack("<I", 10))
    (tmp_path / "a.zip").write_bytes(raw[:1000] if how == "cut" else raw)
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(WorkError, match=rf"^a.zip: {message}.*; nothing of it was kept$"):
        unpack_zip(tmp_path / "a.zip", target, largest=10_000, holds=HOLDS)
    assert os.listdir(target) == []


# Fetching: everything is in place, checked and recorded, or nothing looks as if it were.


def test_fetch_brings_isic_2019_with_licence_and_origin(publisher, own_place, capsys):
    files = isic2019_files()
    publisher.serve("isic2019", files)
    place = fetch("isic2019", mirror=publisher.address)
    assert place == own_place / "isic2019" == fetched_place("isic2019")
    images = [f"ISIC_2019_Training_Input/{image}.jpg" for image in ISIC_IDS]
    tables = sorted(set(files) - {ARCHIVE})
    assert set(read_all(place)) == {*images, *tables, "ISIC_2019_Training_Input/ATTRIBUTION.txt"}
    digest = hashlib.sha256(files[ARCHIVE]).hexdigest()
    origin = (place / "SOURCE.txt").read_text()
    for text in (digest, f"{publisher.address}/isic2019/{ARCHIVE}", "CC BY-NC 4.0", "Combalia"):
        assert text in origin
    record = json.loads((place / "fetched.json").read_text())
    assert record["complete"]
    assert record["files"][ARCHIVE]["checked against"] == "nothing: the publisher gives no hash"
    stderr = capsys.readouterr().err
    assert "licence: CC BY-NC 4.0\nplease cite: Tschandl" in stderr
    assert f"{ARCHIVE}: no published hash; recorded sha256 {digest}" in stderr
    publisher.requested.clear()
    assert fetch("isic2019", mirror=publisher.address) == place
    assert publisher.requested == []


def test_fetch_brings_what_was_removed_and_checks_it_against_its_record(publisher, monkeypatch):
    publisher.serve("isic2019", isic2019_files())
    monkeypatch.setenv("FOPRO_MIRROR", publisher.address)
    place = fetch("isic2019", progress=False)
    before = read_all(place)
    shutil.rmtree(place / "ISIC_2019_Training_Input")
    assert fetched_place("isic2019") is None
    publisher.requested.clear()
    fetch("isic2019", progress=False)
    assert read_all(place) == before
    assert [path for path, _ in publisher.requested] == [f"isic2019/{ARCHIVE}"]
    shutil.rmtree(place / "ISIC_2019_Training_Input")
    publisher.serve("isic2019", {ARCHIVE: zipped({"ISIC_2019_Training_Input/x.jpg": b"other"})})
    fails(r"^ISIC_2.*: expected sha256 \w{64} as in .*fetched", fetch, "isic2019", progress=False)
    assert not list(place.rglob("*.zip*"))


def test_fetch_removes_wrong_bytes_and_compares_the_first_digits_of_a_hash(publisher, own_place):
    publisher.serve("medmnist-derma", {"dermamnist.npz": medmnist_npz()})
    got = hashlib.md5(medmnist_npz()).hexdigest()
    rule = rf"^dermamnist.npz: expected md5 0744692d530f8e62ec473284d019b0c7, got {got}; .* removed"
    fails(rule, fetch, "medmnist:derma", mirror=publisher.address, progress=False)
    assert not list(own_place.rglob("*.npz*")) and fetched_place("medmnist:derma") is None
    (file,) = find_source("moco-v2").files
    publisher.serve("moco-v2", {file.name: b"weights"})
    with pytest.raises(WorkError, match=r"expected md5 a04e12f8, got [0-9a-f]{8}; "):
        fetch("moco-v2", mirror=publisher.address, progress=False)
    right = replace(file, known=f"md5:{hashlib.md5(b'weights').hexdigest()[:8]}")
    source = replace(find_source("moco-v2"), files=(right,))
    place = fetch(source, out=own_place, mirror=publisher.address, progress=False)
    assert (place / file.name).read_bytes() == b"weights"


@pytest.mark.real
def test_the_published_split_files_are_those_that_are_fetched(publisher, shared):
    folder = shared / "data" / "isic2019_lt_splits"
    publisher.serve("fopro-splits", {file.name: file.read_bytes() for file in folder.glob("*.csv")})
    place = fetch("fopro-splits", mirror=publisher.address, progress=False)
    assert len(read_all(place)) == 45 and read_all(place) == read_all(folder)


def test_a_disk_that_fills_up_is_one_line_and_costs_no_second_download(publisher, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    publisher.serve("isic2019", isic2019_files())
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extractall", full)
        with pytest.raises(WorkError, match=r"isic2019: the disk is full; free some space and"):
            fetch("isic2019", mirror=publisher.address, progress=False)
    assert fetched_place("isic2019") is None
    publisher.requested.clear()
    assert fetch("isic2019", mirror=publisher.address, progress=False)
    assert publisher.requested == []


def test_too_small_a_disk_is_reported_before_anything_is_fetched(publisher, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=15 * 10**9))
        with pytest.raises(WorkError, match=r"^isic2019: needs 20.3 GB of disk, 15.0 GB are free"):
            fetch("isic2019", mirror=publisher.address, progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match=r"may not be written; choose another folder"):
        fetch("isic2019", out=tmp_path / "file", mirror=publisher.address, progress=False)
    assert publisher.requested == []


def test_two_fetches_at_once_do_no_double_work(publisher, own_place, monkeypatch, capsys):
    monkeypatch.setattr(fetching, "TIMEOUT", (9.0, 9.0))
    publisher.serve("isic2019", isic2019_files() | {ARCHIVE: MANY})
    publisher.pause = 0.1  # longer in all than a second, after which the other one says so
    with ThreadPoolExecutor(2) as pool:
        places = list(pool.map(lambda _: fetch("isic2019", mirror=publisher.address), range(2)))
    assert places == [own_place / "isic2019"] * 2
    requested = sorted(path for path, _ in publisher.requested)
    assert requested == sorted(f"isic2019/{name}" for name in isic2019_files())
    assert "isic2019: another process is fetching it, waiting" in capsys.readouterr().err


@pytest.mark.parametrize("moment", range(8))
def test_a_fetch_stopped_at_any_moment_ends_with_the_same_bytes(
    publisher, own_place, monkeypatch, moment
):
    """Stopped before the n-th time that a file is put into place, as near to a kill as it gets."""
    publisher.serve("isic2019", isic2019_files())
    expected = read_all(fetch("isic2019", out=own_place / "whole", mirror=publisher.address))
    calls, replace_file = iter(range(100)), os.replace

    def stopping(*paths):
        if next(calls) == moment:
            raise KeyboardInterrupt
        replace_file(*paths)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", stopping)
        fetch("isic2019", mirror=publisher.address, progress=False)
    assert fetched_place("isic2019") is None
    place = fetch("isic2019", mirror=publisher.address, progress=False)
    assert read_all(place) == expected == read_all(fetched_place("isic2019"))
    assert not [name for name in os.listdir(place) if name.startswith(".")]


def test_the_commands_fetch_and_list(fopro, publisher, own_place):
    publisher.serve("isic2019", isic2019_files())
    code, out, stderr = fopro("data", "fetch", "isic2019", "--mirror", publisher.address)
    assert (code, out) == (0, f"{own_place / 'isic2019'}\n") and "licence: CC BY-NC 4.0" in stderr
    code, out, _ = fopro("data", "list")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert ["isic2019", f"{own_place / 'isic2019'};", "CC", "BY-NC", "4.0"] in lines
    assert ["hyperkvasir", "not", "fetched,", "3.9", "GB;", "CC", "BY", "4.0"] in lines
    _, out, _ = fopro("data", "list", "--json")
    places = {source["name"]: source["place"] for source in json.loads(out)}
    assert places["isic2019"] == str(own_place / "isic2019") and places["moco-v2"] is None
    code, out, stderr = fopro("data", "fetch", "moco-v2", "--mirror", publisher.address)
    assert (code, out) == (1, "")
    assert "fopro: moco_v2_800ep_pretrain.pth.tar: " in stderr
    code, _, stderr = fopro("data", "fetch", "isic2020")
    assert code == 2 and stderr.startswith(
        "fopro: source: expected one that `fopro data list` shows"
    )
