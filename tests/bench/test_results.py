"""Results as files: strict JSON, named after machine and day, nothing that tells whose machine."""

import getpass
import json
import platform

import numpy as np
import pandas as pd

from benchmarks.machine import device_kind, machine_facts
from benchmarks.results import as_text, write_results


def test_write_results_writes_json_that_any_program_reads(tmp_path):
    table = pd.DataFrame({"variant": ["a", "b"], "ratio": [1.0, 2.5], "goal": [np.nan, 2.0]})
    facts = {"gpu": "", "cores": 2, "date": "2026-01-31"}
    path = write_results("data", {"batches": table}, out=tmp_path, facts=facts)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["machine"] == facts and content["bench"] == "data"
    assert content["tables"]["batches"] == [
        {"variant": "a", "ratio": 1.0, "goal": None},
        {"variant": "b", "ratio": 2.5, "goal": 2.0},
    ]


def test_machine_facts_name_no_person_and_no_host():
    facts = machine_facts()
    told = json.dumps(facts)
    assert platform.node() not in told and getpass.getuser() not in told
    assert facts["memory_gib"] >= 1 and facts["versions"]["torch"]


def test_device_kind_is_fit_for_a_file_name():
    assert device_kind({"gpu": "NVIDIA H200", "cores": 16}) == "nvidia-h200"
    assert device_kind({"gpu": "", "cores": 4}) == "cpu4"


def test_as_text_leaves_unknown_numbers_empty():
    told = as_text(pd.DataFrame({"variant": ["a"], "ratio": [1.0], "goal": [np.nan]}))
    assert "nan" not in told.lower() and "None" not in told
