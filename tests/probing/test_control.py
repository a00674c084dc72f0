"""The control: a low-pass whose inverse is known, and what gains before a teacher restore."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fopro_lab.data import batches, open_dataset, pack
from fopro_lab.errors import InputError
from fopro_lab.fourier import (
    FourierPrompt,
    apply_gain,
    fit_prompt,
    mean_amplitude,
    spectrum_gain,
)
from fopro_lab.models import wrap_teacher
from fopro_lab.probing import control
from fopro_lab.probing.features import resampling_units
from fopro_lab.training import HeldOut, explore_fitted
from tests.probing.toys import CLASS_NAMES, SIZE, amplitudes, make_pack, photos, wave_images

CUTOFF = 0.2  # cycles per pixel
BEHIND = control.Degradation("low-pass", CUTOFF)
BOUND = 3.0  # of the toy's gains: its fast wave is 20 times too faint
COMMITTED = Path(__file__).parents[2] / "reports/control/control.csv"


class Thresholds(nn.Module):
    """A teacher that sees a wave only above some amplitude."""

    def forward(self, images):
        colour = images.mean(dim=(1, 2, 3))[:, None]  # says nothing of the class
        return torch.cat([torch.relu(amplitudes(images) - 1.0), 0.2 * colour], dim=1)


def thresholds():
    return wrap_teacher(Thresholds(), mean=[0] * 3, std=[1] * 3, input_size=SIZE, feature_dim=3)


def test_degrade_is_a_low_pass_with_noise_that_the_inverse_filter_undoes_within_its_bound():
    images = photos(3, 16)
    noisy, behind = control.Degradation()(images), apply_gain(images, control.low_pass(16))
    torch.testing.assert_close(control.Degradation()(images[1:])[0], noisy[1], rtol=0, atol=1e-6)
    noise = noisy - behind
    assert (noise.std(dim=(1, 2, 3)) - 0.002).abs().max() < 2e-4
    assert noise.mean(dim=(1, 2, 3)).abs().max() < 3e-4 and not torch.equal(*noise[:2])
    both = control.low_pass(32, cutoff=0.1) * control.inverse_gain(32, cutoff=0.1)
    reached = control.low_pass(32, cutoff=0.1) >= np.exp(-1.5)
    torch.testing.assert_close(both[reached], torch.ones(int(reached.sum())))
    assert control.inverse_gain(32).max() == pytest.approx(np.exp(1.5))


@pytest.fixture(scope="module")
def world():
    """Waves of two frequencies, of which the low-pass hides one from the teacher."""
    lesion = np.repeat(np.arange(120), 2)
    labels = (lesion % 3).astype(np.int64)
    return make_pack(wave_images(labels), labels, lesion, "", CLASS_NAMES)


def test_learned_prompt_recovers_half_of_the_inverse(world, monkeypatch):
    monkeypatch.setattr(control, "FLOOR", 0.05)
    network = thresholds()
    train, val, test = np.split(np.arange(240), [120, 180])
    images, labels = next(batches(world, train, batch_size=120))
    images = BEHIND(images)
    clean, classes = next(batches(world, val, batch_size=60))
    gains = {"none": None, "inverse": control.inverse_gain(SIZE, max_log_gain=BOUND, cutoff=CUTOFF)}
    target, bound = mean_amplitude(clean), {"size": (SIZE, SIZE), "max_log_gain": BOUND}
    gains["reference"] = spectrum_gain(mean_amplitude(images), target, **bound)
    prompt = FourierPrompt("radial", size=SIZE, max_log_gain=BOUND)
    fit_prompt(prompt, gains["reference"])
    held_out = HeldOut(BEHIND(clean), classes)
    units = resampling_units(world.dataset.table, rows=train)
    candidates = explore_fitted(prompt, network, images, labels, units=units, steps=3,
                                held_out=held_out, batch_size=60)  # fmt: skip
    gains["learned"] = prompt.mean_gain().detach()
    plain, drift = network.encode(images), 0.05  # less than the prompt's: of two waves few matter
    moved = control.random_gains(network, prompt, images, drift=drift, draws=2, seed=0)
    for gain in moved:  # a shape, not contrast; the mean colour stays
        assert float(gain.log().mean()) == pytest.approx(0, abs=0.01)
        assert (gain[..., 0, 0] == 1).all()
        changed = network.encode(apply_gain(images, gain))
        found = float((1 - torch.cosine_similarity(plain, changed)).mean())
        assert found == pytest.approx(drift, rel=0.2)
    gains |= {"random": moved, "a": moved[0], "b": moved[1]}
    table = control.control_table(network, world, gains, train=train, test=test, split="toy",
                                  resamples=20, degradation=BEHIND)  # fmt: skip
    values = table.set_index(["input", "gain"])["balanced_accuracy"]
    assert list(table.columns) == control.COLUMNS and candidates["kept"].sum() == 1
    assert values["clean", "none"] == 1 and values["degraded", "none"] < 0.8
    shares = control.recovered(table).set_index("gain")["share"]
    assert shares["inverse"] == 1 and shares["learned"] >= 0.5 and shares["reference"] >= 0.5
    drift = table.set_index(["input", "gain"])["drift"]["degraded", "none"]
    assert drift == pytest.approx(0, abs=1e-9)
    # The mean of both draws, not a draw of its own.
    own = table.set_index("gain")[["drift", "balanced_accuracy"]]
    assert np.allclose(own.loc["random"], own.loc[["a", "b"]].mean(), atol=1e-12)
    assert shares["random"] < shares["learned"]
    draws = control.gain_profiles(gains).groupby("gain")["draw"].nunique()
    assert draws["random"] == 2 and draws["inverse"] == 1


def test_benefits_are_paired_differences(world, monkeypatch):
    monkeypatch.setattr(control, "FLOOR", 0.05)
    train, _, test = np.split(np.arange(240), [120, 180])
    inverse = control.inverse_gain(SIZE, max_log_gain=BOUND, cutoff=CUTOFF)
    gains = {"none": None, "same": torch.ones(()), "inverse": inverse}
    how = {"train": train, "test": test, "resamples": 50}
    table = control.gain_benefits(thresholds(), world, gains, degradation=BEHIND, **how)
    found = table.set_index("gain")
    # Paired: a gain of 1 differs by nothing in every resample.
    assert found.loc["same", ["difference", "low", "high"]].abs().max() == 0
    assert found.loc["inverse", "low"] > 0.1
    judged = control.control_table(thresholds(), world, gains, split="", degradation=BEHIND, **how)
    levels = judged.set_index(["input", "gain"])["balanced_accuracy"]["degraded"]
    assert found.loc["inverse", "difference"] == pytest.approx(levels["inverse"] - levels["none"])
    assert (table["without"] == levels["none"]).all() and set(table["kind"]) == {"low-pass"}


def test_degradations_change_the_amplitudes_they_name():
    images = photos(2, 32)
    low, high = (..., 0, 1), (..., 0, 16)  # 1/32 and 0.5 cycles per pixel
    for kind, severity, at_low, at_high in (
        ("sharpening", 3.0, 1 + 3 * (1 - np.exp(-((1 / 3.2) ** 2))), 4.0),
        ("contrast", 0.5, 0.5, 0.5),
    ):
        changed = control.Degradation(kind, severity).gain(32)
        assert changed[0, 0] == 1  # the mean colour stays
        assert float(changed[low]) == pytest.approx(at_low)
        assert float(changed[high]) == pytest.approx(at_high, rel=1e-5)
    assert torch.equal(control.Degradation("clean", 0.0)(images), images)
    grey = 0.45 + 0.1 * images
    noise = control.Degradation("noise", 0.1)(grey) - grey
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    for kind, severities in control.SEVERITIES.items():  # as a scanner records, which saturates
        low, high = control.Degradation(kind, severities[-1])(images).aminmax()
        assert kind == "low-pass" or 0 <= low <= high <= 1
    for kind, severity in (("blur", 1.0), ("noise", 0.0)):
        with pytest.raises(InputError, match="expected"):
            control.Degradation(kind, severity)


def test_the_usual_severities_are_those_of_notebook_10():
    text = (Path(__file__).parents[2] / "notebooks/10_when_prompts_help.ipynb").read_text()
    assert "severities or control.SEVERITIES" in text
    usual = [control.Degradation(k, each) for k, own in control.SEVERITIES.items() for each in own]
    assert len(usual) == 9 and {each.kind for each in usual} == set(control.KINDS) - {"clean"}


def test_a_gain_is_matched_in_drift():
    network = thresholds()
    images, gain = photos(16, SIZE), control.inverse_gain(SIZE, cutoff=CUTOFF)
    matched = control.with_drift(network, images, gain, drift=0.05)
    plain, other = network.encode(images), network.encode(apply_gain(images, matched))
    found = float((1 - torch.cosine_similarity(plain, other)).mean())
    assert found == pytest.approx(0.05, rel=0.1)
    with pytest.raises(InputError, match="drift: expected what the gain can reach, got 2"):
        control.with_drift(network, images, torch.ones(SIZE, 9), drift=2.0)


def test_fitted_head_refuses_a_prompt_with_noise():
    network = thresholds()
    prompt, labels = FourierPrompt("generator", size=SIZE), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(InputError, match="expected ring, radial or shared, got 'generator'"):
        explore_fitted(prompt, network, photos(4, SIZE), labels, units=np.arange(4),
                       held_out=HeldOut(photos(4, SIZE), labels))  # fmt: skip


@pytest.mark.real
def test_the_closed_form_finds_the_inverse_filter_on_real_images(shared):
    packed = pack(open_dataset(str(shared / "data/ham10000"), images=256), 64, progress=False)
    images, _ = next(batches(packed, range(128), batch_size=128))
    others, _ = next(batches(packed, range(128, 256), batch_size=128))
    bound = {"size": (64, 64), "max_log_gain": 1.5}
    behind = control.Degradation("low-pass", 0.1)(images)
    found = spectrum_gain(mean_amplitude(behind), mean_amplitude(others), **bound)
    away = (found / control.inverse_gain(64, cutoff=0.1)).log().abs()
    assert float(away[0, 1:16].mean()) < 0.25  # no gain at all is 0.9 away


@pytest.fixture
def committed():
    """Share of the inverse filter's points by split and gain."""
    table = pd.read_csv(COMMITTED, dtype={"split": str})
    assert list(table.columns) == control.COLUMNS and set(table["split"]) == {"1", "2", "3"}
    return control.recovered(table).pivot(index="split", columns="gain", values="share")


def test_the_committed_prompt_recovers_half_of_the_inverse_filter(committed):
    assert (committed["learned"] >= 0.5).all()


def test_the_committed_random_gains_recover_nothing(committed):
    assert (committed["random"] < 0).all() and "contrast" in committed


def test_the_results_page_shows_the_committed_table():
    page = (COMMITTED.parents[2] / "docs/results.md").read_text()
    for row in pd.read_csv(COMMITTED).itertuples():
        values = (row.balanced_accuracy, row.low, row.high)
        assert "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in values)) in page
