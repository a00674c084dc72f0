import json

from tests.fetching.publications import isic2019_files, serve


def test_fetch_prints_the_folder_and_list_knows_it(fopro, shop, own_place):
    serve(shop, "isic2019", isic2019_files())
    code, out, told = fopro("data", "fetch", "isic2019", "--mirror", shop.address)
    assert (code, out) == (0, f"{own_place / 'isic2019'}\n")
    assert "licence: CC BY-NC 4.0" in told
    code, out, _ = fopro("data", "list")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert ["isic2019", f"{own_place / 'isic2019'};", "CC", "BY-NC", "4.0"] in lines
    assert ["hyperkvasir", "not", "fetched,", "3.9", "GB;", "CC", "BY", "4.0"] in lines
    _, out, _ = fopro("data", "list", "--json")
    places = {source["name"]: source["place"] for source in json.loads(out)}
    assert places["isic2019"] == str(own_place / "isic2019")
    assert places["moco-v2"] is None


def test_fetch_takes_another_folder(fopro, shop, tmp_path):
    serve(shop, "isic2019", isic2019_files())
    place = tmp_path / "elsewhere"
    code, out, _ = fopro("data", "fetch", "isic2019", "--out", place, "--mirror", shop.address)
    assert (code, out) == (0, f"{place / 'isic2019'}\n")


def test_fetch_fails_in_one_line(fopro, shop):
    code, out, told = fopro("data", "fetch", "isic2019", "--mirror", shop.address)
    assert (code, out) == (1, "")
    assert told.splitlines()[-1].startswith(
        "fopro: ISIC_2019_Training_GroundTruth.csv: the server answers 404 Not Found at http://127"
    )
    code, _, told = fopro("data", "fetch", "isic2020")
    assert code == 2
    assert told.startswith("fopro: source: expected isic2019, hyperkvasir, ")
