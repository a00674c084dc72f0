import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from fopro_lab.errors import InputError
from fopro_lab.fourier import FourierPrompt
from fopro_lab.fourier.prompt import read_prompt, write_prompt

SETTINGS = FourierPrompt("ring", rings=2).settings
CELLS = {"cells": torch.zeros(3, 3)}


def test_what_is_written_comes_back(tmp_path):
    write_prompt(tmp_path / "a", {"cells": torch.arange(6.0).reshape(2, 3).T}, {"rows": 4})
    state, settings = read_prompt(tmp_path / "a")
    assert state["cells"].equal(torch.arange(6.0).reshape(2, 3).T)
    assert settings == {"rows": 4}


class Code:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize(
    "content", [b"", b"not a tensor file", pickle.dumps(Code())], ids=["empty", "text", "pickle"]
)
def test_other_files_are_refused_and_never_executed(tmp_path, content):
    path = tmp_path / "prompt.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"prompt\.safetensors: expected a safetensors file"):
        FourierPrompt.load(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a safetensors file"):
        read_prompt(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "expected a saved Fourier prompt, got other tensors"),
        ({"fopro_lab.prompt": "9"}, "expected prompt version 1, got 9"),
        ({"fopro_lab.prompt": "1"}, "expected the prompt's settings as JSON metadata"),
        (
            {"fopro_lab.prompt": "1", "settings": "{"},
            "expected the prompt's settings as JSON metadata",
        ),
        (
            {"fopro_lab.prompt": "1", "settings": "[1]"},
            "expected the prompt's settings as JSON metadata",
        ),
    ],
)
def test_foreign_metadata_is_refused(tmp_path, metadata, message):
    save_file(CELLS, tmp_path / "a", metadata=metadata)
    with pytest.raises(InputError) as error:
        read_prompt(tmp_path / "a")
    assert str(error.value) == f"{tmp_path / 'a'}: {message}"


@pytest.mark.parametrize(
    ("settings", "state", "reason"),
    [
        (SETTINGS | {"rings": 4}, CELLS, "size mismatch for cells"),
        (SETTINGS | {"form": "generator"}, CELLS, "Missing key"),
        (SETTINGS | {"rows": "16"}, CELLS, "rows: expected a whole number 2 to 256, got '16'"),
        (SETTINGS | {"code": 1}, CELLS, "unexpected keyword argument 'code'"),
        (SETTINGS, {}, "Missing key"),
        (SETTINGS, {"cells": torch.zeros(3, 3, dtype=torch.int64)}, "only accepts floating point"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path, settings, state, reason):
    metadata = {"fopro_lab.prompt": "1", "settings": json.dumps(settings)}
    save_file(state, tmp_path / "a", metadata=metadata)
    with pytest.raises(InputError) as error:
        FourierPrompt.load(tmp_path / "a")
    assert str(error.value).startswith(f"{tmp_path / 'a'}: expected a saved Fourier prompt, got ")
    assert reason in str(error.value) and "\n" not in str(error.value)
