import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from fopro_lab.config import TrainConfig
from fopro_lab.evaluation.runs import MAPS_FILE, RINGS_FILE
from fopro_lab.training import distill
from fopro_lab.training.run_folder import SIDE, MaskHistory, ring_rows, write_masks
from tests.fourier.toys import make, seeded
from tests.training.forked import TINY
from tests.training.prompt_toys import run, same, seen


def test_masks_go_from_the_identity_to_the_kept_prompt_and_change_no_bit():
    history = MaskHistory(1, frozenset({0, 8}))
    how = {"steps": 8, "learning_rate": 3.0, "held_out": seen(every=4), "masks": history}
    prompt, _ = run("statistics", **how)
    first, last = (mask["gain"].float() for mask in history.masks)
    assert (first == 1).all()
    expected = prompt.mean_gain(size=(SIDE, SIDE)).log().mean(dim=0).exp().detach()
    torch.testing.assert_close(last, expected, atol=1e-3, rtol=0)
    plain, table = run("task", form="generator")
    history = MaskHistory.spread(1, trainings=1, steps=25)
    watched, other = run("task", form="generator", masks=history)
    assert same(watched, plain)
    pd.testing.assert_frame_equal(table, other)
    assert [mask["step"] for mask in history.masks] == sorted(history.steps)


def test_ring_rows_are_the_geometric_means_of_the_whole_plane():
    gain = torch.rand(SIDE, SIDE // 2 + 1, generator=seeded()) + 0.5
    gain[:, [0, -1]] = (gain[:, [0, -1]] + gain.flip(0).roll(1, 0)[:, [0, -1]]) / 2
    gain = gain.half()
    table = ring_rows([{"exploration": 1, "step": 0, "gain": gain}])
    whole = np.ones((SIDE, SIDE))
    for row in range(SIDE):
        for column in range(SIDE):
            if column <= SIDE // 2:
                whole[row, column] = gain[row, column]
            else:
                whole[row, column] = gain[-row % SIDE, SIDE - column]
    places = np.fft.fftfreq(SIDE)
    radius = np.hypot(places[:, None], places[None])
    for row in table.itertuples():
        inside = (radius > row.low) & (radius <= row.high)
        assert row.gain == pytest.approx(np.exp(np.log(whole[inside]).mean()), rel=1e-12)


def test_written_maps_are_the_whole_plane_with_zero_frequency_in_the_middle(tmp_path):
    prompt = make("shared", scale=1.0)
    history = MaskHistory(3, frozenset({7}))
    history.look(prompt, 7)
    write_masks(tmp_path, history.masks)
    maps = load_file(tmp_path / MAPS_FILE)
    plane = maps["gain"][0].float()
    assert (maps["step"].tolist(), maps["exploration"].tolist()) == ([7], [3])
    assert plane.shape == (SIDE, SIDE) and plane[SIDE // 2, SIDE // 2] == 1
    # A real image's gain is the same at opposite frequencies.
    inner = plane[1:, 1:]
    torch.testing.assert_close(inner, inner.flip(0, 1), atol=2e-3, rtol=0)
    # Pushed through numpy's own full transform it does what the prompt does.
    image = torch.rand(1, 3, SIDE, SIDE, generator=seeded(1))
    gain = prompt.mean_gain(size=(SIDE, SIDE)).log().mean(dim=0).exp()
    half = np.fft.irfft2(np.fft.rfft2(image[0, 0].numpy()) * gain.detach().numpy(), s=(SIDE, SIDE))
    full = np.fft.ifft2(np.fft.fft2(image[0, 0].numpy()) * np.fft.ifftshift(plane.numpy()))
    np.testing.assert_allclose(full.real, half, atol=2e-3)
    assert np.abs(full.imag).max() < 1e-3


def test_a_run_writes_its_masks(tmp_path):
    options = TINY | {"warmup_epochs": 1, "prompt_steps": 4, "prompt_check_images": 8}
    whole = distill(TrainConfig(**options), out=tmp_path / "whole", verbose=False).path
    table = pd.read_parquet(whole / RINGS_FILE)
    assert list(table.columns) == ["exploration", "step", "low", "high", "gain"]
    places = table[["exploration", "step"]].drop_duplicates().to_numpy().tolist()
    assert places == [[1, step] for step in range(5)] + [[2, step] for step in range(1, 5)]
    assert (table["gain"][:9] == 1).all() and not (table["gain"][9:] == 1).all()
