"""Exported students answer as the run does, from images of any size, and say where they end."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fopro_lab.data.decoding import resize_square
from fopro_lab.evaluation import calibrate, with_interval
from fopro_lab.evaluation.metrics import calibration_error
from fopro_lab.use import export, export_student, predict
from fopro_lab.use.export import FILTERS, resize
from tests.conftest import failure


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("shape", [(97, 131), (33, 40), (64, 64), (301, 450)])
def test_resize_is_pillows_within_one_grey_level(kind, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    wanted = resize_square(image, size=64, interpolation=kind)
    batch = torch.from_numpy(image)[None].movedim(3, 1).float()
    found = resize(batch, 64, kind, whole=True)[0].movedim(0, 2).numpy()
    apart = np.abs(found - wanted)
    assert apart.max() <= 1 and (apart > 0).mean() < 0.1  # sums of halves may round either way


@pytest.mark.slow
def test_exported_students_answer_as_predict_does(trained, tmp_path, fopro):
    import onnx
    import onnxruntime

    run, images = trained
    names = ("s.onnx", "s.pt2")
    words = [f"--{name.partition('.')[2]}={tmp_path / name}" for name in names]
    code, out, _ = fopro("export", run.path, *words)
    assert code == 0 and len(out.splitlines()) == 3 and out.count("within") == 2
    for number, path in enumerate(sorted(images.iterdir())[:3]):
        Image.open(path).resize((90 + number, 71)).save(tmp_path / f"{number}.png")
    table, _ = predict(run, tmp_path, out=tmp_path / "p.csv")
    wanted = table.filter(like="probability_").to_numpy()
    session = onnxruntime.InferenceSession(tmp_path / "s.onnx")
    program = torch.export.load(tmp_path / "s.pt2").module()
    for number, row in enumerate(wanted):
        pixels = np.array(Image.open(tmp_path / f"{number}.png"))[None]
        logits, found = session.run(["logits", "probabilities"], {"images": pixels})
        np.testing.assert_allclose(found[0], row, atol=1e-3)
        np.testing.assert_allclose(program(torch.from_numpy(pixels))[0], logits, atol=1e-2)
    props = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "s.onnx").metadata_props
             if p.key in ("class_names", "temperature", "set_limits")}  # fmt: skip
    assert props["class_names"] == list(run.class_names)
    assert props["temperature"] == calibrate(run).temperature
    assert len(props["set_limits"]) == len(run.class_names)


def test_a_student_that_answers_otherwise_is_not_written(trained, tmp_path, monkeypatch):
    def to_pt2(student, texts):  # one that takes BGR for RGB
        return b"", lambda images: student(torch.from_numpy(images[..., ::-1].copy()))

    monkeypatch.setattr(export, "to_pt2", to_pt2)
    assert "of the run's own, got" in failure(export_student, trained[0], [tmp_path / "s.pt2"])
    assert not list(tmp_path.iterdir())


def test_model_card_says_data_n_recall_limits_and_licence(trained, tmp_path, fopro):
    run, _ = trained
    assert fopro("export", run.path, "--card", tmp_path / "card.md")[0] == 0
    text = (tmp_path / "card.md").read_text()
    scores = run.table().query("scope == 'class'").set_index("name")
    for name, count in zip(run.class_names, run.manifest["class_counts"], strict=True):
        row = scores.loc[name]
        recall = with_interval(row["value"], row["low"], row["high"])
        assert (
            f"| {name} | {row['group']} | {count} |" in text
            and f"| {row['n']} | {recall} |" in text
        )
    for words in ("not a medical device", run.protocol, "## Limits", "Training images: generated",
                  "every set", "equal class shares"):  # fmt: skip
        assert words in text
    assert "{" not in text and "\n\n\n\n" not in text
    # Of the probabilities that `predict` gives, at the class shares that they are for.
    test, calibration = run.predictions.query("split == 'test'"), calibrate(run)
    shares = calibration.probabilities(test.filter(like="logit_").to_numpy(), calibration.prior(""))
    labels = test["label"].to_numpy()
    weights = 1 / np.bincount(labels)[labels]  # equal classes
    ece = calibration_error(shares, labels, weights[:, None])[0]
    assert f"weighted to these class shares: {100 * ece:.0f} %" in text


def test_names_in_the_card_are_neither_cells_nor_html(trained):
    run, _ = trained
    scores = run.table()
    scores.loc[scores.index[0], "name"] = "<b>a|b"
    other = type(run)(run.path, {**run.manifest, "data_notes": ["<b>"]})
    other.__dict__["table"] = lambda: scores
    names = [name if name in set(scores["name"]) else "<b>a|b" for name in run.class_names]
    other.manifest["class_names"] = names
    text = export.model_card(other, calibrate(run), {})
    assert "<b>" not in text and text.count("&lt;b&gt;a&#124;b") == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--onnx=s.onnx"], "onnxruntime: not installed; pip install 'fopro_lab[export]'"),
        (["--onnx=s.bin"], "expected files of the endings .onnx, .pt2, .md, got s.bin, s.md"),
        ([], "expected files of the endings .onnx, .pt2, .md, got none"),
    ],
)
def test_what_is_missing_is_one_line(trained, fopro, monkeypatch, words, line):
    found = export.find_spec
    monkeypatch.setattr(export, "find_spec", lambda n: None if n == "onnxruntime" else found(n))
    code, out, err = fopro("export", trained[0].path, *words)
    assert code == 2 and out == "" and err.count("\n") == 1 and line in err
