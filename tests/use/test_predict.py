"""Predictions of files: the run's own answers, calibrated, with every file accounted for."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fopro_lab.config import PredictConfig
from fopro_lab.data import prepare
from fopro_lab.evaluation import calibrate
from fopro_lab.use import predict
from tests.conftest import complaint


def test_files_get_the_answers_of_the_runs_own_test(trained, tmp_path, fopro):
    run, images = trained
    code, out, err = fopro("predict", run.path, images, "--out", tmp_path / "new/p.csv")
    assert (code, err) == (0, "") and "not a medical device" in out
    table = pd.read_csv(tmp_path / "new/p.csv", keep_default_na=False)
    test = run.predictions.query("split == 'test'").copy()
    test["image"] = test["image"].str.replace("/", "_") + ".png"
    test = test.sort_values("image")
    assert table["image"].tolist() == test["image"].tolist()
    calibration, logits = calibrate(run), test.filter(like="logit_").to_numpy()
    wanted = calibration.probabilities(logits, calibration.prior(""))
    shares = table.filter(like="probability_").to_numpy()
    np.testing.assert_allclose(shares, wanted, atol=2e-6)  # written with six digits
    names = np.array(run.class_names)
    assert table["predicted"].tolist() == names[wanted.argmax(axis=1)].tolist()
    np.testing.assert_allclose(table["probability"], wanted.max(axis=1), atol=1e-6)
    for text, own in zip(table["class_set"], calibration.class_sets(logits), strict=True):
        assert set(text.split("|")) - {""} == set(names[own])
    facts = json.loads((tmp_path / "new/p.json").read_text())
    assert facts["images"] == len(test) and facts["not read"] == 0
    assert facts["temperature"] == round(calibration.temperature, 4)
    assert facts["of the run's own"] == {"train": 0, "val": 0, "test": len(test)}
    assert set(table["part"]) == {"test"} and f"0 from validation and {len(test)} from" in out


def test_training_images_are_counted_under_any_name_and_a_gone_pack_is_said(
    trained, tmp_path, fopro, monkeypatch
):
    run, _ = trained
    config = run.train_config.model_copy(update={"image_size": 64})
    packed, split = prepare(config, progress=False)
    (tmp_path / "in").mkdir()
    pixels = packed.images[split.train[0]]
    for name, shown in {"a.png": pixels, "b.png": pixels, "new.png": 255 - pixels}.items():
        Image.fromarray(shown).save(tmp_path / "in" / name)
    words = ("predict", run.path, tmp_path / "in", "--out", tmp_path / "p.csv")
    code, out, err = fopro(*words)
    assert (code, err) == (0, "") and "knows 2 of them from training, 0 from" in out
    table = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert table["part"].tolist() == ["train", "train", ""]
    monkeypatch.setenv("FOPRO_CACHE", str(tmp_path / "empty"))
    code, out, err = fopro(*words)
    assert code == 0 and "trained on any of them is not known: " in out and "no such pack" in out
    assert not list(tmp_path.glob("empty/*.npy")), "nothing is packed for it"


def test_names_stay_whole_in_the_table(trained, tmp_path, capsys):
    run, images = trained
    odd = ["a|b", "a", *run.class_names[2:]]
    titles = {f"logit_{old}": f"logit_{new}" for old, new in zip(run.class_names, odd, strict=True)}
    config = {**run.config, "method": "", "loss": "focal"}
    other = type(run)(run.path, {**run.manifest, "class_names": odd, "config": config})
    other.manifest["given"] = ["packed"]
    other.__dict__["predictions"] = run.predictions.rename(columns=titles)
    (tmp_path / "in").mkdir()
    for name in (b"=1+1.png", b"caf\xe9.png"):
        shutil.copy(min(images.iterdir()), os.path.join(os.fsencode(tmp_path / "in"), name))
    config = PredictConfig(coverage=0.999)  # every class is in every set
    _, facts = predict(other, tmp_path / "in", config, out=tmp_path / "p.csv")
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["image"].tolist() == ["'=1+1.png", "caf\\udce9.png"]
    found = re.split(r"(?<!\\)\|", table["class_set"][0])
    assert sorted(found) == sorted(name.replace("|", "\\|") for name in odd)
    assert facts["class shares"] == "unknown"
    assert "images were given in training" in capsys.readouterr().err


def test_other_class_shares_change_predictions_and_no_set(trained, tmp_path):
    run, images = trained
    plain, _ = predict(run, images, out=tmp_path / "p.csv")
    config = PredictConfig(prior="training")
    moved, facts = predict(run, images, config, out=tmp_path / "m.csv")
    counts = run.manifest["class_counts"]
    columns = [f"probability_{name}" for name in run.class_names]
    odds = plain[columns].to_numpy() * counts
    np.testing.assert_allclose(moved[columns], odds / odds.sum(axis=1, keepdims=True), rtol=1e-6)
    sets = [[set(text.split("|")) for text in table["class_set"]] for table in (plain, moved)]
    assert sets[0] == sets[1]
    assert facts["class shares"]["disc"] == pytest.approx(counts[0] / sum(counts), abs=1e-6)


def test_every_file_is_accounted_for(trained, tmp_path, fopro):
    run, images = trained
    mixed = tmp_path / "mixed"
    (mixed / "below").mkdir(parents=True)
    first = sorted(images.iterdir())[0]
    shutil.copy(first, mixed / "below/good.png")
    (mixed / "bad.jpg").write_bytes(b"\xff\xd8\xff no image")
    deep = Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
    deep.save(mixed / "deep.png")
    (mixed / "notes.txt").write_text("no image")
    code, out, err = fopro("predict", run.path, mixed, "--out", tmp_path / "p.csv")
    assert code == 0 and "notes.txt" in out
    assert "fopro: not read: bad.jpg: cannot be decoded" in err
    assert "fopro: not read: deep.png: pixels: expected 0..255, got 0..4095" in err
    table = pd.read_csv(tmp_path / "p.csv", keep_default_na=False).set_index("image")
    assert table.index.tolist() == ["bad.jpg", "below/good.png", "deep.png"]
    assert table["problem"].astype(bool).tolist() == [True, False, True]
    assert table["predicted"].astype(bool).tolist() == [False, True, False]
    alone, _ = predict(run, first, out=tmp_path / "one.csv")
    assert str(alone["probability"][0])[:7] == str(table["probability"]["below/good.png"])[:7]
    config = PredictConfig(bit_depth=12)
    table, facts = predict(run, mixed, config, out=tmp_path / "deep.csv")
    assert facts["not read"] == 1 and table["problem"].tolist()[1:] == ["", ""]


def test_the_answer_is_sentences_with_the_way_out_of_sets_that_say_nothing(
    trained, tmp_path, fopro
):
    run, images = trained
    words = ("predict", run.path, images, "--out", tmp_path / "p.csv")
    code, out, _ = fopro(*words)
    assert code == 0 and not set("{}[]") & set(out)
    table, few = pd.read_csv(tmp_path / "p.csv", keep_default_na=False), calibrate(run).too_few
    first, answer, predicted, *_ = out.splitlines()
    assert first == f"{tmp_path / 'p.csv'}:"
    assert answer == f"{len(table)} of {len(table)} images classified by {run.path} (bsm)"
    for name, count in table["predicted"].value_counts().items():
        assert f"{name} {count}" in predicted
    assert min(few.values()) >= 1 and "fewer than 9 of their lesions or patients: " in out
    lower = re.search(r"--set (coverage=[\d.]+), the highest without such classes", out)
    _, out, _ = fopro(*words, "--set", lower[1])
    assert "In every set" not in out, "the way out is one"
    share = float(lower[1].partition("=")[2]) + 0.01
    assert "In every set" in fopro(*words, "--set", f"coverage={share:.2f}")[1], (
        "and no too low one"
    )


def test_nothing_is_written_where_nothing_can_be_predicted(trained, tmp_path):
    run, images = trained
    (tmp_path / "in").mkdir()
    Path(tmp_path / "in/bad.png").write_bytes(b"no image")
    out = tmp_path / "out/p.csv"
    assert "none of 1 images can be read" in complaint(predict, run, tmp_path / "in", out=out)
    (tmp_path / "in/bad.png").rename(tmp_path / "in/scan.dcm")
    assert "found 1 .dcm files" in complaint(predict, run, tmp_path / "in", out=out)
    (tmp_path / "in/scan.dcm").rename(tmp_path / "in/notes.txt")
    told = complaint(predict, run, tmp_path / "in", out=out)
    assert told.endswith("in it or below, found other files alone (notes.txt)") and ".png" in told
    (tmp_path / "in/notes.txt").unlink()
    assert complaint(predict, run, tmp_path / "in", out=out).endswith("or below, found none")
    assert "no such path" in complaint(predict, run, tmp_path / "inn", out=out)
    assert "ending .csv" in complaint(predict, run, tmp_path / "in", out=tmp_path / "p.xlsx")
    assert "would be overwritten" in complaint(predict, run, images, out=run.path / "manifest.csv")
    assert run.read(run.path).state == "done" and not (run.path / "manifest.csv").exists()
    assert not out.parent.exists() or not list(out.parent.iterdir())
