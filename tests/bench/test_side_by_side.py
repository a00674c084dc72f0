"""Variants on one device: the first is the reference, and a GPU is waited for."""

import torch

from benchmarks.side_by_side import side_by_side
from benchmarks.timing import Variant


def test_side_by_side_waits_for_a_gpu_and_names_it(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(1))
    variants = [Variant("a", lambda: 1), Variant("b", lambda: 1, goal=1e-9)]
    table = side_by_side(variants, rounds=3, label="test", device="cuda")
    assert table["variant"].tolist() == ["a, on the GPU", "b, on the GPU"]
    assert table["reached"].tolist() == ["", "yes"] and len(waited) == 2 * 4
    side_by_side(variants, rounds=3, label="test")
    assert len(waited) == 2 * 4
