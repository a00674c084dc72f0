import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fopro_lab.data import fetch as archives
from fopro_lab.data.fetch import (
    UnsafeArchive,
    WrongBytes,
    data_folder,
    fetch,
    fetch_source,
    fetched_place,
    find_source,
)
from fopro_lab.errors import InputError, WorkError
from tests.fetching.loopback import HASTY, Manners
from tests.fetching.publications import (
    ISIC_IDS,
    hyperkvasir_zip,
    isic2019_files,
    medmnist_npz,
    published,
    serve,
    zipped,
)
from tests.fetching.test_archives import read_all

ARCHIVE = "ISIC_2019_Training_Input.zip"


def data_of(place: Path) -> dict[str, bytes]:
    """Return the data alone: the notes beside it bear a date."""
    notes = ("fetched.json", "SOURCE.txt", "LICENCE.txt")
    return {name: content for name, content in read_all(place).items() if name not in notes}


def test_fetch_brings_isic_2019_with_licence_and_origin(shop, own_place, capsys):
    files = isic2019_files()
    serve(shop, "isic2019", files)
    place = fetch("isic2019", mirror=shop.address)
    assert place == own_place / "isic2019" == fetched_place("isic2019")
    images = [f"ISIC_2019_Training_Input/{image}.jpg" for image in ISIC_IDS]
    tables = sorted(set(files) - {ARCHIVE})
    expected = sorted([*images, *tables, "ISIC_2019_Training_Input/ATTRIBUTION.txt"])
    assert sorted(data_of(place)) == expected
    assert "CC BY-NC 4.0" in (place / "LICENCE.txt").read_text()
    digest = hashlib.sha256(files[ARCHIVE]).hexdigest()
    origin = (place / "SOURCE.txt").read_text()
    assert digest in origin
    assert f"{shop.address}/isic2019/{ARCHIVE}" in origin
    assert "Combalia" in origin
    record = json.loads((place / "fetched.json").read_text())
    assert record["complete"]
    assert record["files"][ARCHIVE]["checked against"] == "nothing: the publisher gives no hash"
    told = capsys.readouterr().err
    assert "licence: CC BY-NC 4.0\nplease cite: Tschandl" in told
    assert f"{ARCHIVE}: its publisher gives no hash; recorded sha256 {digest}" in told


def test_fetch_returns_at_once_when_all_is_there(shop, monkeypatch):
    serve(shop, "isic2019", isic2019_files())
    monkeypatch.setenv("FOPRO_MIRROR", shop.address)
    first = fetch("isic2019", progress=False)
    shop.asked.clear()
    assert fetch("isic2019", progress=False) == first
    assert shop.asked == []


def test_fetch_brings_again_what_was_removed_and_checks_it_against_its_record(shop):
    files = isic2019_files()
    serve(shop, "isic2019", files)
    place = fetch("isic2019", mirror=shop.address, progress=False)
    before = data_of(place)
    shutil.rmtree(place / "ISIC_2019_Training_Input")
    assert fetched_place("isic2019") is None
    shop.asked.clear()
    fetch("isic2019", mirror=shop.address, progress=False)
    assert data_of(place) == before
    assert [path for path, _ in shop.asked] == [f"isic2019/{ARCHIVE}"]
    shutil.rmtree(place / "ISIC_2019_Training_Input")
    shop.files[f"isic2019/{ARCHIVE}"] = zipped({"ISIC_2019_Training_Input/x.jpg": b"other"})
    with pytest.raises(WrongBytes, match=r"^ISIC_2.*: expected sha256 \w{64} as in .*fetched.json"):
        fetch("isic2019", mirror=shop.address, progress=False)
    assert not list(place.rglob("*.zip*"))


def test_wrong_bytes_are_one_line_and_removed(shop):
    serve(shop, "medmnist-derma", {"dermamnist.npz": medmnist_npz()})
    with pytest.raises(WrongBytes) as caught:
        fetch("medmnist:derma", mirror=shop.address, progress=False)
    got = hashlib.md5(medmnist_npz()).hexdigest()
    assert str(caught.value) == (
        f"dermamnist.npz: expected md5 0744692d530f8e62ec473284d019b0c7, got {got}; the file was "
        "removed: fetch it again, and if it stays so, its publisher has changed it"
    )
    assert not list(data_folder().rglob("*.npz*"))
    assert fetched_place("medmnist:derma") is None


def test_the_first_digits_of_a_hash_are_compared_too(shop, own_place):
    source = find_source("moco-v2")
    name = source.files[0].name
    serve(shop, "moco-v2", {name: b"weights"})
    with pytest.raises(WrongBytes, match=r"expected md5 a04e12f8, got [0-9a-f]{8}; "):
        fetch("moco-v2", mirror=shop.address, progress=False)
    start = hashlib.md5(b"weights").hexdigest()[:8]
    right = replace(source, files=(replace(source.files[0], known=f"md5:{start}"),))
    fetch_source(right, root=own_place, mirror=shop.address, progress=False)
    assert (fetched_place("moco-v2") / name).read_bytes() == b"weights"


def test_medmnist_is_unpacked_into_arrays(shop, own_place):
    files = {"dermamnist.npz": medmnist_npz()}
    serve(shop, "medmnist-derma", files)
    source = published("medmnist:derma", files)
    place = fetch_source(source, root=own_place, mirror=shop.address, progress=False)
    assert sorted(data_of(place)) == sorted(source.files[0].holds)


def test_hyperkvasir_comes_with_its_official_splits(shop, own_place):
    files = {
        "hyper-kvasir-labeled-images.zip": hyperkvasir_zip(),
        "official_splits/2_fold_split.csv": b"file-name;class-name;split-index\n",
        "official_splits/5_fold_split.csv": b"file-name;class-name;split-index\n",
    }
    serve(shop, "hyperkvasir", files)
    source = published("hyperkvasir", files)
    place = fetch_source(source, root=own_place, mirror=shop.address, progress=False)
    assert (place / "official_splits" / "5_fold_split.csv").is_file()
    assert len(list((place / "labeled-images").rglob("*.jpg"))) == 6


@pytest.mark.real
def test_the_published_split_files_are_those_that_are_fetched(shop, shared):
    folder = shared / "data" / "isic2019_lt_splits"
    serve(shop, "fopro-splits", {file.name: file.read_bytes() for file in folder.glob("*.csv")})
    place = fetch("fopro-splits", mirror=shop.address, progress=False)
    assert len(data_of(place)) == 45
    assert data_of(place) == read_all(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>please log in</html>", r"^ISIC_.*zip: a damaged archive, or none"),
        (zipped({"../evil.txt": b"1"}), r"^ISIC_.*zip: member '../evil.txt' leads out of the fold"),
        (zipped({"Other/a.jpg": b"1"}), r"^ISIC_.*zip: expected it to hold ISIC_2019_Training_Inp"),
    ],
)
def test_an_archive_that_is_none_is_one_line_and_removed(shop, own_place, content, message):
    serve(shop, "isic2019", isic2019_files() | {ARCHIVE: content})
    with pytest.raises(UnsafeArchive, match=message):
        fetch("isic2019", mirror=shop.address, progress=False)
    assert not list(own_place.rglob("*.zip*"))
    serve(shop, "isic2019", isic2019_files())
    assert fetch("isic2019", mirror=shop.address, progress=False)


def test_a_full_disk_while_unpacking_is_told_and_nothing_comes_twice(shop, own_place, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    serve(shop, "isic2019", isic2019_files())
    with monkeypatch.context() as patch:
        patch.setattr(archives._Register, "write", full)
        with pytest.raises(WorkError, match=r"isic2019: the disk is full; free some space; the "):
            fetch("isic2019", mirror=shop.address, progress=False)
    assert fetched_place("isic2019") is None
    shop.asked.clear()
    assert fetch("isic2019", mirror=shop.address, progress=False)
    assert shop.asked == []


def test_too_small_a_disk_is_told_before_anything_is_asked(shop, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=15 * 10**9))
    with pytest.raises(WorkError, match=r"^isic2019: needs 20.3 GB of disk, 15.0 GB are free in "):
        fetch("isic2019", mirror=shop.address, progress=False)
    assert shop.asked == []


def test_a_folder_that_may_not_be_written_is_told(tmp_path, shop):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match=r"may not be written; choose another folder with --out"):
        fetch("isic2019", out=tmp_path / "file", mirror=shop.address, progress=False)


def test_two_fetches_at_once_do_no_double_work(shop, own_place, capsys):
    serve(shop, "isic2019", isic2019_files())
    shop.manners = Manners(pause=0.4)
    places: list[Path] = []
    threads = [
        threading.Thread(target=lambda: places.append(fetch("isic2019", mirror=shop.address)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert places == [own_place / "isic2019"] * 3
    assert sorted(path for path, asked in shop.asked if not asked) == sorted(
        f"isic2019/{name}" for name in isic2019_files()
    )
    assert "isic2019: another process is fetching it, waiting" in capsys.readouterr().err


def test_fetches_killed_at_random_moments_end_with_the_same_bytes(shop, tmp_path):
    rng = random.Random(0)
    files = isic2019_files()
    many = {f"ISIC_2019_Training_Input/{n}.jpg": rng.randbytes(3000) for n in range(60)}
    serve(shop, "isic2019", files | {ARCHIVE: zipped(many)})
    shop.manners = Manners(pause=0.002)
    start = time.monotonic()
    expected = data_of(fetch("isic2019", out=tmp_path / "whole", mirror=shop.address))
    seconds = time.monotonic() - start
    moments = [f"{rng.uniform(0.02, 1.2) * seconds:.4f}" for _ in range(20)]
    script = Path(__file__).with_name("kill_fetches.py")
    command = [sys.executable, str(script), shop.address, str(tmp_path), *moments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split().count("1") >= 10  # the others were done before their moment
    shop.manners = Manners()
    for number in range(20):
        place = fetch("isic2019", out=tmp_path / str(number), mirror=shop.address, progress=False)
        assert data_of(place) == expected
        assert not [name for name in os.listdir(place) if name.startswith(".")]


def test_the_mirror_must_be_an_address():
    with pytest.raises(InputError, match=r"^mirror: expected an address, http:// or .* 'my/disk'"):
        fetch("isic2019", mirror="my/disk")


def test_publishers_are_asked_by_https_alone():
    for name in ("isic2019", "hyperkvasir", "fopro-splits", "moco-v2", "medmnist:derma-224"):
        assert all(file.url.startswith("https://") for file in find_source(name).files)


def test_a_stalling_publisher_is_one_line(shop, own_place):
    serve(shop, "isic2019", isic2019_files())
    shop.manners = Manners(stall_after=100, ranges=False)
    with pytest.raises(WorkError, match=r"^ISIC_2019_Training_GroundTruth.csv: the server stalls"):
        fetch_source(
            find_source("isic2019"),
            root=own_place,
            mirror=shop.address,
            progress=False,
            patience=HASTY._replace(attempts=1, read=0.1),
        )
