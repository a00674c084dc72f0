import numpy as np
import pandas as pd
from PIL import Image

from fopro_lab.checks.duplicates import copies_table, first_of, same_content
from fopro_lab.data import open_dataset, pack
from tests.auditing.toys import texture


def archive(root):
    """An image, its file copied, its pixels saved anew, another, and one of equal size."""
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
    Image.fromarray(texture(0)).save(root / "a/1.png")
    (root / "b/2.png").write_bytes((root / "a/1.png").read_bytes())
    Image.fromarray(texture(0)).save(root / "b/3.png", compress_level=1)
    Image.fromarray(texture(1)).save(root / "b/4.png")
    return pack(open_dataset(root), 32, progress=False)


def test_same_content_joins_copied_files_and_files_saved_anew(tmp_path):
    packed = archive(tmp_path)
    assert packed.dataset.table["image"].tolist() == ["a/1.png", "b/2.png", "b/3.png", "b/4.png"]
    assert same_content(packed).tolist() == [0, 0, 0, 3]


def test_same_content_keeps_images_of_one_file_size_apart(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        Image.fromarray(texture(seed)).save(tmp_path / name / "x.bmp")
    packed = pack(open_dataset(tmp_path), 32, progress=False)
    assert same_content(packed).tolist() == [0, 1]


def test_first_of_nothing_is_nothing():
    assert first_of([]).tolist() == []


def test_copies_table_lists_whole_sets():
    table = pd.DataFrame({"image": list("dcba"), "label": [0, 0, 1, 0], "group": list("wxyz")})
    parts = np.array(["train", "val", "test", ""])
    found = copies_table(table, content=np.array([0, 1, 0, 1]), parts=parts)
    assert found["image"].tolist() == ["b", "d", "a", "c"]
    assert found["part"].tolist() == ["test", "train", "", "val"]
    assert found["label"].tolist() == [1, 0, 0, 0]
