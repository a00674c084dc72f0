import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fopro_lab.data.readers import read_cells
from fopro_lab.errors import InputError

quick = settings(deadline=None, max_examples=60)
names = st.lists(
    st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6),
    min_size=2,
    max_size=4,
    unique=True,
)
cells = st.text(
    st.characters(exclude_categories=["C", "Zl", "Zp"]) | st.sampled_from('\n ",;\t'), max_size=6
)


@st.composite
def tables(draw) -> tuple[list[str], list[list[str]]]:
    """Draw a header and some lines; no line is empty, since those are passed over."""
    header = draw(names)
    line = st.lists(cells, min_size=len(header), max_size=len(header)).filter(
        lambda row: any(cell.strip() for cell in row)
    )
    return header, draw(st.lists(line, min_size=1, max_size=5))


@quick
@given(
    table=tables(),
    separator=st.sampled_from(",;\t"),
    mark=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_read_cells_reads_what_was_written(tmp_path_factory, table, separator, mark, end, quoting):
    header, rows = table
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerows([header, *rows])
    path = tmp_path_factory.getbasetemp() / "written.csv"
    path.write_bytes(text.getvalue().encode("utf-8-sig" if mark else "utf-8"))
    frame = read_cells(path)
    assert list(frame.columns) == header
    assert frame.to_numpy().tolist() == [[cell.strip() for cell in row] for row in rows]


@quick
@given(content=st.binary(max_size=60) | st.text('a1,;\t\n\r" \x00', max_size=40).map(str.encode))
def test_read_cells_answers_any_bytes_with_a_table_or_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        frame = read_cells(path)
    except InputError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
    else:
        assert len(frame) and all(isinstance(cell, str) for cell in frame.to_numpy().ravel())


def write(path: Path, text: str) -> Path:
    path = path / "a.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "image,dx\n1,nv\n2,mel\n",
        "\ufeffimage,dx\r\n1,nv\r\n2,mel\r\n",
        "image;dx\n1;nv\n2;mel",
        "image\tdx\n1\tnv\n\n2\tmel\n\n",
        '"image","dx"\n"1","nv"\n 2 , mel \n',
        "\nimage,dx,\n1,nv,\n2,mel,,\n",
        ",image,dx\n0,1,nv\n1,2,mel\n",
        "image,dx\r1,nv\r2,mel\r",
    ],
)
def test_read_cells_reads_one_table_in_many_spellings(tmp_path, text):
    frame = read_cells(write(tmp_path, text))
    assert frame.to_dict("list") == {"image": ["1", "2"], "dx": ["nv", "mel"]}


def test_read_cells_counts_separators_outside_of_quotes(tmp_path):
    frame = read_cells(write(tmp_path, '"a, b, c";dx\n1;nv\n'))
    assert frame.to_dict("list") == {"a, b, c": ["1"], "dx": ["nv"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,dx\n1,nv,x\n", r"a.csv: line 2: expected 2 cells as in the header, got 3$"),
        ('image,dx\n"1\n",nv\n\n2\n', r"a.csv: line 5: expected 2 cells as in the header, got 1$"),
        ("image, image,dx\n1,2,nv\n", r"expected columns of different names, got 'image' twice$"),
        ('image,dx\n1,"nv\n', r"cannot be read as CSV \(unexpected end of data\)$"),
        ("image,dx\n", r"expected a row per image, found none$"),
        ("\n \n", r"cannot be read as CSV \(it is empty\)$"),
    ],
)
def test_read_cells_refuses(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_cells(write(tmp_path, text))


def test_read_cells_refuses_other_encodings_and_folders(tmp_path):
    path = write(tmp_path, "")
    path.write_bytes("image,dx\n1,häm\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"it is not UTF-8\); save it as CSV UTF-8$"):
        read_cells(path)
    path.write_bytes("image,dx\n1,nv\n".encode("utf-16"))
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_cells(path)
    with pytest.raises(InputError, match=r"cannot be read as CSV \(Is a directory\)$"):
        read_cells(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read as CSV \(No such file or directory\)$"):
        read_cells(tmp_path / "none.csv")
