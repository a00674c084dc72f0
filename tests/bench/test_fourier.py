"""The benchmark of the prompt: its references do the same work, its goals look the right way."""

import json
import math
import time

import numpy as np
import pytest
import torch

import benchmarks
import fopro_lab.training.train
from benchmarks import gains, responses, steps
from benchmarks.fourier import bench_fourier
from benchmarks.side_by_side import side_by_side
from benchmarks.timing import Variant
from fopro_lab.data import open_dataset, pack
from fopro_lab.errors import InputError
from fopro_lab.fourier import apply_gain
from fopro_lab.models import load_teacher, wrap_teacher
from fopro_lab.probing.features import encode
from fopro_lab.probing.ring_response import RingDrifts, ring_drifts
from fopro_lab.training.train import train_epoch

TIMED = {
    "gain": [5.0, 5.0, math.nan],
    "gain_backward": [5.0, 5.0, math.nan],
    "gain_alone": [5.0, 5.0, math.nan],
    "bare": [1 / 1.3],
    "bare_backward": [math.nan, 1 / 1.3, 1 / 1.3],
    "step": [1 / 1.1] * 5,
    "step_resnet50": [1 / 1.1],
    "rings": [1 / 1.1],
    "rings_resnet50": [1 / 1.1],
    "bf16": [math.nan, math.nan],
}


@pytest.fixture(scope="module")
def tables():
    return bench_fourier(rounds=3, size=32, batch=2)


@pytest.fixture(scope="module")
def toy_images():
    # Noise has no amplitude of 0, whose phase, and its gradient, would be anything.
    return torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture(scope="module")
def packed():
    return pack(open_dataset("phantom", images=24), 32, progress=False)


@pytest.mark.parametrize("key", TIMED)
def test_bench_fourier_compares_with_the_first_row_and_aims_at_the_goals(tables, key):
    table = tables[key]
    assert table["ratio"].iloc[0] == 1.0 and math.isnan(table["goal"].iloc[0])
    assert table["goal"].tolist()[1:] == pytest.approx(TIMED[key], nan_ok=True)
    assert (table[["per_second", "low", "high"]] > 0).all(axis=None)
    assert (table["rounds"] == 3).all()
    for row in table.itertuples():
        reached = "" if math.isnan(row.goal) else "yes" if row.ratio >= row.goal else "no"
        assert row.reached == reached


def test_bench_fourier_has_rows_of_a_gpu_where_there_is_one(tables):
    on_cpu = [*TIMED, "preference"]
    on_gpu = [f"{key}_cuda" for key in on_cpu]
    assert list(tables) == on_cpu + (on_gpu if torch.cuda.is_available() else [])
    assert torch.get_num_threads() == 1  # the suite's own setting


@pytest.mark.parametrize("shape", [(12, 12), (10, 7), (7, 10)])
@pytest.mark.parametrize("gradients", ["none", "gain", "both"])
def test_the_plain_way_gives_what_apply_gain_gives(shape, gradients):
    height, width = shape
    chance = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, height, width, generator=chance).double()
    gain = 0.5 + torch.rand(3, height, width // 2 + 1, generator=chance).double()
    work = gains.gain_work(images, gain, gradients=gradients)
    plain, ours, each = (work[name]() for name in (gains.PLAIN, gains.OURS, gains.EACH))
    assert len(plain) == {"none": 1, "gain": 2, "both": 3}[gradients]
    # In float64; a gain of one bin off by 1e-6 would move images by 1e-8.
    near = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(ours[0], plain[0], **near)
    torch.testing.assert_close(each[0], plain[0], **near)
    if gradients != "none":
        # Fold the gradient of the whole gain as its mirroring says.
        half = gain.clone().requires_grad_()
        gains.whole_gain(half, width=width).backward(plain[1])
        torch.testing.assert_close(ours[1], half.grad, **near)
        torch.testing.assert_close(each[1].sum(dim=0), half.grad, **near)
    if gradients == "both":
        torch.testing.assert_close(ours[2], plain[2], **near)
        torch.testing.assert_close(each[2], plain[2], **near)


def test_the_plain_way_agrees_in_single_precision_too(images):
    work = gains.gain_work(images.float(), torch.full((3, 12, 7), 1.5), gradients="both")
    for ours, plain in zip(work[gains.OURS]()[::2], work[gains.PLAIN]()[::2], strict=True):
        # Values are near 1; angles in single precision are off by 1e-7, some of them add up.
        torch.testing.assert_close(ours, plain, rtol=0, atol=2e-5)


def test_bare_ffts_and_a_gain_of_one_give_the_images_and_their_gradient(images):
    near = {"rtol": 0, "atol": 1e-12}
    for [result] in (work() for work in gains.bare_work(images).values()):
        torch.testing.assert_close(result, images, **near)
    work = gains.bare_backward_work(images)
    bare, four, of_images, of_both = (run() for run in work.values())
    for result in (bare, four, of_images, (of_both[0], of_both[2])):
        torch.testing.assert_close(result[0], images, **near)
        torch.testing.assert_close(result[1], bare[1], **near)
    assert bare[1].std() > 0.9  # of the gradient from above, a standard normal


def test_what_is_slow_misses_a_goal_and_a_slow_reference_does_not_hide(monkeypatch):
    def slow(images, gain):
        time.sleep(0.02)
        return apply_gain(images, gain)

    monkeypatch.setattr(gains, "apply_gain", slow)
    missed = gains.bench_gain(rounds=3, size=16, batch=2, device="cpu")
    for table in missed.values():
        aimed = table[table["goal"].notna()]
        assert len(aimed) and (aimed["reached"] == "no").all() and (aimed["ratio"] < 0.5).all()
    monkeypatch.undo()
    plain = gains.scale_plainly

    def slow_plain(images, gain):
        time.sleep(0.05)
        return plain(images, gain)

    monkeypatch.setattr(gains, "scale_plainly", slow_plain)
    reached = gains.bench_gain(rounds=3, size=16, batch=2, device="cpu")["gain"]
    assert reached["reached"].tolist() == ["", "yes", "yes", ""] and reached["ratio"].iloc[1] > 5


def test_a_prompt_at_the_identity_leaves_the_losses_of_a_step(packed):
    teacher = load_teacher("builtin")
    options = {"student": "small", "batch": 12}
    alone = train_epoch(*reversed(steps.stage_of(teacher, packed, **options)))
    for form in steps.FORMS:
        stage = steps.stage_of(teacher, packed, method="fopro", prompt_form=form, **options)
        # Losses are near 2; rounding of two FFTs moves them by 1e-6, in the second step by more.
        assert train_epoch(stage.state, stage.setup) == pytest.approx(alone, abs=2e-4), form
    # And it does stand before the teacher: halved high frequencies move what is distilled.
    stage = steps.stage_of(teacher, packed, method="fopro", prompt_form="ring", **options)
    with torch.no_grad():
        stage.state.prompt.cells.fill_(-9.0)
    moved = train_epoch(stage.state, stage.setup)["loss_distill"] - alone["loss_distill"]
    assert abs(moved) > 2e-3


def test_a_slow_prompt_shows_in_the_step(monkeypatch, packed):
    prompted = fopro_lab.training.train.prompted

    def slow(*arguments, **options):
        time.sleep(0.3)
        return prompted(*arguments, **options)

    monkeypatch.setattr(fopro_lab.training.train, "prompted", slow)
    table = steps.bench_steps(
        load_teacher("builtin"),
        packed,
        student="small",
        rounds=3,
        batch=24,
        label="step",
        forms=["ring"],
    )
    assert table["reached"].tolist() == ["", "no"]


class Counting(torch.nn.Module):
    """Means of quarters, and how often they were asked for."""

    def __init__(self):
        super().__init__()
        self.pool = torch.nn.AdaptiveAvgPool2d(4)
        self.asked = []

    def forward(self, images):
        self.asked.append((len(images), torch.is_inference(images)))
        return self.pool(images).flatten(1)


@pytest.fixture
def counting():
    return wrap_teacher(Counting(), mean=[0] * 3, std=[1] * 3, input_size=32, feature_dim=48)


def test_a_ring_response_asks_the_teacher_as_often_as_its_reference(counting):
    counting.body.asked.clear()
    responses.bench_rings(counting, torch.rand(5, 3, 32, 32), rounds=3, label="rings")
    # Nine passes each, in four rounds: the first one does not count but runs.
    assert counting.body.asked == [(5, True)] * (2 * 9 * 4)


def test_a_slow_ring_response_misses_its_goal(monkeypatch, counting):
    def slow(*arguments, **options):
        time.sleep(0.05)
        return ring_drifts(*arguments, **options)

    monkeypatch.setattr(responses, "ring_drifts", slow)
    table = responses.bench_rings(counting, torch.rand(2, 3, 32, 32), rounds=3, label="rings")
    assert table["reached"].tolist() == ["", "no"]


def test_the_rings_timed_are_eight_and_end_at_half_a_cycle():
    assert np.allclose(np.diff(responses.EDGES), 1 / 16)
    assert (responses.EDGES[0], responses.EDGES[-1], len(responses.EDGES)) == (0.0, 0.5, 9)


def test_preference_changes_tells_how_far_the_logarithms_move(monkeypatch):
    # Drift per energy is exp of these; less its mean over the rings it is the preference.
    single = np.zeros((8, 2))
    single[0] = [0.8, 1.6]
    half = single + 5.0  # a teacher that answers more to everything prefers the same
    half[3] += [-0.08, 0.16]
    guarded = np.where(np.arange(8)[:, None] == 3, single, half - 5.0)

    def answers(log, gains, in_half, rounding):
        drift = 1e-3 * np.exp(log)[None, :, :, None] * np.ones(4)
        flags = np.broadcast_to(np.array(in_half).reshape(1, -1, 1), (1, 8, 2))
        edges = tuple(responses.EDGES)
        return RingDrifts(edges, gains, ("all",), drift, np.ones_like(drift), rounding, flags)

    def found(teacher, images, edges, gains, *, precision="32-true"):
        if isinstance(teacher, responses.InHalf):
            return answers(half, gains, [False] * 8, 0.0)
        if precision == "32-true":
            return answers(single, gains, [False] * 8, 0.0)
        return answers(guarded, gains, [ring != 3 for ring in range(8)], 7e-5)

    monkeypatch.setattr(responses, "ring_drifts", found)
    table = responses.preference_changes(
        load_teacher("builtin"), torch.zeros(4, 3, 8, 8), gains=(0.0, 2.0)
    )
    assert table["ring"].tolist() == [*map(str, range(8)), "all"]
    # What moves ring 3 by d moves its preference by 7/8 d and the others' by d/8 against it.
    assert table["largest_everywhere"].tolist() == pytest.approx(
        [0.02, 0.02, 0.02, 0.14, 0.02, 0.02, 0.02, 0.02, 0.14]
    )
    assert table["mean_everywhere"].tolist() == pytest.approx(
        [0.015, 0.015, 0.015, 0.105, 0.015, 0.015, 0.015, 0.015, 0.02625]
    )
    assert table["largest"].max() == pytest.approx(0.0, abs=1e-12)
    assert table["in_half"].tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 7 / 8]
    # (0.8 + 1.6) / 2, less an eighth of it.
    assert table["preference"].tolist() == pytest.approx(
        [1.05] + [-0.15] * 7 + [math.nan], nan_ok=True
    )
    assert table["drift"].tolist() == pytest.approx([1e-3 * math.exp(0.8)] + [1e-3] * 8)
    assert (table["rounding"] == 7e-5).all() and (table["n"] == 4).all()


def test_bfloat16_everywhere_is_the_bfloat16_of_probing():
    teacher = load_teacher("builtin")
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    half = responses.InHalf(teacher).encode(images)
    assert torch.equal(half, encode(teacher, images, precision="bf16-mixed"))
    moved = 1 - torch.cosine_similarity(half.double(), teacher.encode(images).double(), dim=1)
    assert (moved > 1e-7).all() and (moved < 1e-3).all()


def test_rings_of_photographs_move_the_teacher_more_than_rounding_does(tables):
    table = tables["preference"]
    assert table["in_half"].between(0, 1).all() and (table["largest"] >= table["mean"]).all()
    assert (table["rounding"] > 0).all() and (table["drift"] > table["rounding"]).all()


def test_the_command_hands_its_options_on_and_prints_the_tables(monkeypatch, fopro, tmp_path):
    table = side_by_side([Variant("a", lambda: 1)], rounds=3, label="test")
    asked = []
    monkeypatch.setattr(
        benchmarks, "bench_fourier", lambda **options: asked.append(options) or {"gain": table}
    )
    code, told, _ = fopro("bench", "fourier", "--rounds", 4, "--size", 48, "--json")
    assert code == 0 and asked == [{"rounds": 4, "size": 48}]
    assert json.loads(told)["tables"]["gain"][0]["variant"] == "a"
    code, told, _ = fopro("bench", "fourier", "--out", tmp_path)
    assert code == 0 and asked[1] == {"rounds": 9, "size": 224} and "\ngain\n" in told
    endings = sorted(path.name.partition("-")[0] + path.suffix for path in tmp_path.iterdir())
    assert endings == ["fourier.json", "fourier.png"]


def test_wrong_input_is_told():
    with pytest.raises(InputError, match="size: expected 16 or more pixels, got 15"):
        bench_fourier(size=15)
    with pytest.raises(InputError, match="batch: expected 2 or more images, got 1"):
        bench_fourier(batch=1)
    with pytest.raises(InputError, match="rounds: expected 3 or more, got 2"):
        bench_fourier(rounds=2, size=16, batch=2)
