import re

import pytest

from fopro_lab.data.fetch import SIZES, find_source, medmnist_facts, source_names
from fopro_lab.errors import InputError


@pytest.mark.parametrize("name", source_names())
def test_every_source_is_whole(name):
    source = find_source(name)
    assert source.name == name
    assert source.licence and source.citation and source.home.startswith("https://")
    for file in source.files:
        assert not file.known or re.fullmatch(r"sha256:\w{64}|md5:(\w{32}|a04e12f8)", file.known)
        assert bool(file.unpacked) == bool(file.members) == bool(file.holds)
        assert file.size <= file.unpacked or not file.unpacked


def test_the_split_files_are_pinned_to_a_commit():
    files = find_source("fopro-splits").files
    assert len({file.name for file in files}) == 45
    assert all(re.search(r"/FoPro-KD/[0-9a-f]{40}/data/ham2019/", file.url) for file in files)


def test_medmnist_has_a_hash_for_every_size():
    for short, facts in medmnist_facts().items():
        assert set(facts["md5"]) == {str(size) for size in SIZES}
        assert len(set(facts["classes"])) == len(facts["classes"]) > 1
        for size in SIZES[1:]:
            assert find_source(f"medmnist:{short}-{size}").folder == f"medmnist-{short}-{size}"


def test_medmnist_bounds_what_comes_out_of_its_archive():
    (file,) = find_source("medmnist:derma-64").files
    pixels = 10_015 * 64 * 64 * 3
    assert pixels < file.unpacked < 1.01 * pixels


@pytest.mark.parametrize(
    "name",
    ["medmnist:", "medmnist:chest", "medmnist:derma-65", "medmnist:derma-", "medmnist:derma-x"],
)
def test_an_unknown_medmnist_set_is_told(name):
    with pytest.raises(InputError, match=r"^source: expected medmnist: with one of path, derma, "):
        find_source(name)


def test_an_unknown_source_is_told_with_the_nearest():
    with pytest.raises(InputError, match=r"got 'hyperkvasr'; did you mean 'hyperkvasir'\?"):
        find_source("hyperkvasr")
