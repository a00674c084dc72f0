"""Find the table of a data set's images, read its cells, and say what its columns mean."""

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fopro_lab.data.readers import (
    SPLIT_WORDS,
    Listing,
    find_images,
    list_files,
    number_classes,
    plain_name,
    refuse_twice,
    sort_files,
    stem_of,
)
from fopro_lab.errors import InputError

# Usual names of columns, in lower case and without spaces, underscores and the like.
USUAL_NAMES = {
    "image": "image imageid imagename filename file path filepath imagepath imageindex imagefile "
    "img imgid imgname imgpath imgfile idcode isicid derm picture id",
    "class": "classname diagnosis dx findingname labelname class label target diagnostic "
    "findinglabels findinglabel labels finding disease category level grade dxid classid labelid "
    "diagnosisid benignmalignant diagnosis1 y",
    "group": "group patientid patient subjectid subject casenum caseid lesionid lesion",
    "source": "source site scanner center centre hospital",
    "split": "split partition subset splitname datasetsplit datasplit usage splitindex",
}
FOLDS = "fold foldid kfold cvfold foldnumber".split()
FLAGS = {"istrain": "train", "isval": "val", "isvalid": "val", "istest": "test"}
MAYBE_SPLIT = "set phase dataset".split()  # of something else, unless it has words of a split
# Columns of 0 and 1 with one of these words in their names are not classes.
COVARIATES = frozenset(
    "sex gender male female age smoke smoker smoking drink alcohol left right family history is "
    "has biopsy biopsied biopsed consent quality itch itching grew hurt bleed elevation changed "
    "pesticide".split()
)
MOST_MARKS = 64  # columns of 0 and 1 that are searched for a set of classes
# How tables write an empty cell, and how people write that a group or a source is not known, in
# lower case; a class may well be called 'none' or 'unknown'.
EMPTY = frozenset({"", "nan", "na", "n/a", "<na>", "null", "#n/a"})
NOT_KNOWN = EMPTY | frozenset(
    {"none", "unknown", "not known", "unspecified", "missing", "not available", "n.a.", "-", "--"}
    | {"?", ".", "nil", "nat", "undefined"}
)
YES, NO = {"1", "1.0", "true", "yes", "y"}, {"0", "0.0", "false", "no", "n"}
TABLES = (".csv", ".tsv", ".tab", ".psv")
TEXTS = (".txt", ".dat", "")  # perhaps a table
SHEETS = (".xlsx", ".xls", ".ods", ".parquet", ".jsonl", ".feather")
PROSE = re.compile(r"(read_?me|licen[cs]e|attribution|citation|notice|changelog|source).*")
WAYS_OUT = (
    "name the table, and the folder of its images: dataset=TABLE image_dir=FOLDER; or take folders "
    "as classes: labels_from=folders"
)


class TableRules(NamedTuple):
    """What the user says about a table; see the options of the same names."""

    columns: dict[str, str] = {}  # noqa: RUF012  by kind
    leave_out: bool = False
    multi_label: str = "stop"
    unclear_split: str = "stop"
    test_fold: str = ""


def read_cells(path: Path, *, needed: Sequence[str] = ()) -> pd.DataFrame:
    """Read every cell of a table as stripped text, so that an id such as 0012 keeps its zeros.

    The file is UTF-8, or UTF-16 as spreadsheets write it, perhaps packed by gzip; separated by
    comma, semicolon, tab or bar, whichever the header has most of, else by spaces. Empty lines
    and columns without a name are left out.
    """
    # Not pandas.read_csv: it pads short lines and takes a first column for an index in silence.
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        if "\0" in text:
            raise csv.Error("it is no text")
        header = next((line for line in text.splitlines() if line.strip()), "")
        unquoted = "".join(header.split('"')[::2])
        mark = max(",;\t|", key=unquoted.count)
        mark = mark if mark in unquoted or " " not in unquoted.strip() else " "
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, delimiter=mark, strict=True, skipinitialspace=mark == " ")
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, EOFError, csv.Error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, UnicodeDecodeError):
            reason = "it is not UTF-8; save it as CSV UTF-8"
        raise InputError(f"{path}: cannot be read as CSV ({reason})") from None
    rows = [(line, row) for line, row in rows if any(row)]
    if len(rows) < 2:
        raise InputError(f"{path}: expected a header and a row per image, found {len(rows)} lines")
    names = rows.pop(0)[1]
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: expected columns of different names, got '{twice[0]}' twice")
    for line, row in rows:
        if not any(row[len(names) :]):  # spreadsheets like to write empty cells at the end
            del row[len(names) :]
        if len(row) != len(names):
            raise InputError(
                f"{path}: line {line}: expected {len(names)} cells as in the header, got {len(row)}"
            )
    cells = [row for _, row in rows]
    frame = pd.DataFrame(cells, columns=names).loc[:, [name != "" for name in names]]
    for name in needed:
        if name not in frame:
            raise InputError(f"{path}: no column '{name}'; it has {', '.join(frame)}")
    return frame


def find_table(
    root: Path, rules: TableRules, *, images_below: Path
) -> tuple[Path | None, list[str]]:
    """Find the one table below a folder that names images below another, and their classes.

    Returns the table, None if no file is a table, and notes on others that are passed over.

    Raises:
        InputError: If there are tables, but none or several of them fit.
    """
    others = sort_files(root)[1]
    images = [file for files in sort_files(images_below) for file in files]
    stems = {plain_name(stem_of(file)) for file in images if _ending(file) is None}
    frames: dict[str, pd.DataFrame] = {}
    reasons: dict[str, str] = {}
    for file in others:
        ending, stem = _ending(file), plain_name(file.rpartition("/")[2].partition(".")[0])
        if ending is None or (ending in TEXTS and PROSE.fullmatch(stem)):
            continue
        if ending in TEXTS and stem in stems:  # an image's own annotation
            continue
        if ending in SHEETS:
            reasons[file] = f"a {ending} file is not read here; save it as CSV UTF-8"
            continue
        try:
            frame = read_cells(root / file)
        except InputError as error:
            if ending in TABLES:
                reasons[file] = str(error).removeprefix(f"{root / file}: ")
            continue
        if len(frame.columns) < 2:
            continue
        try:
            _check_given(frame, rules, file)
            image = _find_image_column(frame, rules.columns.get("image", ""), stems, file)
            if not _known(frame[image], stems).any():
                raise InputError(f"none of its images, such as {frame[image].iloc[0]}, is there")
            classes, _ = _class_columns(frame, rules, file, taken=[image])
            if len(frame[classes].drop_duplicates()) < 2:
                raise InputError("all its images have one class")
            frames[file] = frame.assign(**{"": frame[image]})
        except InputError as error:
            if ending in TABLES or _names_images(frame, stems):
                reasons[file] = str(error).removeprefix(f"{file}: ")
    if not frames and not reasons:
        return None, []
    top = min((file.count("/") for file in frames), default=0)
    fit = sorted(file for file in frames if file.count("/") == top)
    if len(fit) > 1:  # such as a table of boxes in some of the images
        named = {file: set(frames[file][""]) for file in fit}
        whole = max(fit, key=lambda file: len(named[file]))
        parts = [file for file in fit if SPLIT_WORD.search(plain_name(file.rpartition("/")[2]))]
        if not parts and all(named[file] < named[whole] for file in fit if file != whole):
            fit = [whole]
    if len(fit) != 1:
        some = [f"{file} ({reason})" for file, reason in list(reasons.items())[:3]]
        found = f"several tables, {', '.join(fit[:4])}" if fit else f"tables: {'; '.join(some)}"
        raise InputError(f"{root}: expected one table of its images, found {found}; {WAYS_OUT}")
    rest = [file for file in (*frames, *reasons) if file != fit[0]]
    lists = [f for f in others if _ending(f) is not None and SPLIT_WORD.search(plain_name(f))]
    notes = (
        [f"{root}: the table is {fit[0]}"] if rest or not fit[0].lower().endswith(".csv") else []
    )
    passed = list(dict.fromkeys([*rest, *(file for file in lists if file != fit[0])]))
    if passed:
        notes.append(f"not used: {', '.join(passed[:4])}{', ...' * (len(passed) > 4)}")
    return root / fit[0], notes


SPLIT_WORD = re.compile(r"(?<![a-z])(train|valid|val|test|dev)")


def _names_images(frame: pd.DataFrame, stems: set[str]) -> bool:
    return any(_known(frame[name].head(50), stems).any() for name in frame)


def _ending(file: str) -> str | None:
    """Return the ending of a file that may be a table, in lower case; None of any other."""
    name = file.rpartition("/")[2].lower().removesuffix(".gz")
    ending = "." + name.rpartition(".")[2] if "." in name else ""
    return ending if ending in (*TABLES, *TEXTS, *SHEETS) else None


def _known(cells: pd.Series, stems: set[str]) -> pd.Series:
    """Tell which cells name an image, by their names without folders, case and ending."""
    return cells.map(lambda cell: plain_name(stem_of(cell.replace("\\", "/"))) in stems)


def read_table(path: Path, *, root: Path, rules: TableRules = TableRules()) -> Listing:  # noqa: B008
    """Read a table, a row per image, and find its images below a folder, at any depth.

    Columns that ``rules`` does not name are looked for under their usual names, the images also by
    their names on disk. Every guess is a note of the listing.
    """
    columns = rules.columns
    frame = read_cells(path)
    _check_given(frame, rules, path)
    files, others = sort_files(root)
    stems = {plain_name(stem_of(file)) for file in (*files, *others)}
    image_name = _find_image_column(frame, columns.get("image", ""), stems, path)
    total = len(frame)
    parts, part_notes, fold = _find_parts(frame, rules, path, taken=[image_name])
    frame, parts = frame[parts != "?"], parts[parts != "?"]
    labels, names, kept, class_notes, ending = _find_classes(frame, rules, path, taken=[image_name])
    frame, parts, labels = frame[kept], parts[kept], labels[kept]
    groups, group_notes, complete = _find_groups(frame, columns.get("group", ""))
    source = _usual(frame, "source", columns.get("source", ""))
    sources = frame[source[0]] if source else pd.Series("", index=frame.index)
    image = frame[image_name]
    if (image == "").any():
        who = f"line {image.index[image == ''][0] + 2}"
        raise InputError(
            f"{path}: {image_name}: {(image == '').sum()} empty, first of {who}; fill it in or "
            "remove the row"
        )
    refuse_twice(image, where=path)
    way_out = "give the folder that holds them: image_dir=..."
    found = find_images(image, root, where=path, way_out=way_out, leave_out=rules.leave_out)
    refuse_twice(found.paths, where=path)
    endings = [f"-testfold{fold}"] if fold else []
    endings += [ending] if ending else []
    endings += [f"-without{total - len(frame)}"] if len(frame) < total else []
    used = [f"image in '{image_name}'", *class_notes[:1], *group_notes[:1]]
    used += [f"source in '{source[0]}'"] if source else []
    notes = [f"{path.name}: {', '.join(used + part_notes[:1])}"]
    notes += [*class_notes[1:], *group_notes[1:], *part_notes[1:], *found.notes]
    listing = list_files(
        image.tolist(),
        found.paths,
        (labels.tolist(), names),
        groups=groups.tolist(),
        sources=sources.mask(sources.str.casefold().isin(NOT_KNOWN), "").tolist(),
        splits=parts.tolist(),
    )
    return listing._replace(notes=tuple(notes), ending="".join(endings), groups_known=complete)


def _check_given(frame: pd.DataFrame, rules: TableRules, path: Path | str) -> None:
    """Refuse named columns that there are not; ``none`` names none, commas several of classes."""
    for kind, name in rules.columns.items():
        listed = kind == "class" and all(part in frame for part in _listed(name))
        no_column = name == "none" and kind not in ("image", "class")
        if name and name not in frame and not listed and not no_column:
            raise InputError(f"{path}: no column '{name}'; it has {', '.join(frame)}")


def _listed(name: str) -> list[str]:
    return [part.strip() for part in name.split(",")]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", plain_name(name))


def _usual(frame: pd.DataFrame, kind: str, given: str) -> list[str]:
    """Return the given column, or those under usual names of a kind, the most usual first."""
    if given:
        return [given] if given in frame else []
    by_name: dict[str, str] = {}
    for name in frame:
        by_name.setdefault(_plain(name), name)
    return [by_name[usual] for usual in USUAL_NAMES[kind].split() if usual in by_name]


def _find_image_column(frame: pd.DataFrame, given: str, stems: set[str], path: Path | str) -> str:
    """Return the column of images: as given, under a usual name, or by the names on disk."""
    if given:
        return given
    heads = _known(pd.Series(list(frame)), stems)
    if any(_known(frame[name], stems).all() for name in frame.columns[heads]):
        raise InputError(f"{path}: expected names of columns in the first line, got an image's row")
    usual = _usual(frame, "image", "")
    for name in usual:
        if _known(frame[name], stems).any():
            return name
    known = [n for n in frame if frame[n].is_unique and _known(frame[n], stems).all()]
    if len(known) == 1 or (usual and not known):
        return known[0] if known else usual[0]
    raise InputError(
        f"{path}: no image column under a usual name; it has {', '.join(frame)}; name it: "
        "image_column=..."
    )


def _find_groups(frame: pd.DataFrame, given: str) -> tuple[pd.Series, list[str], bool]:
    """Return the lesion or patient of each image, notes, and whether all are known.

    Where the first column with a known one has none, the next one counts.
    """
    groups = pd.Series("", index=frame.index)
    used: list[str] = []
    for name in _usual(frame, "group", given):
        cells = frame[name].mask(frame[name].str.casefold().isin(NOT_KNOWN), "")
        fills = (groups == "") & (cells != "")
        if fills.any():
            groups = groups.mask(fills, cells if not used else f"{name} " + cells)
            used.append(name)
    complete = bool(used) and bool((groups != "").all())
    notes = [f"group in '{used[0]}'" if used else "no group"]
    notes += [f"where '{used[0]}' is not known, the group is '{name}'" for name in used[1:]]
    return groups, notes, complete


class Classes(NamedTuple):
    """The classes of a table's rows."""

    labels: pd.Series  # -1 where a row is left out
    names: tuple[str, ...]
    kept: pd.Series
    notes: list[str]  # the first says in which column they are
    ending: str


def _class_columns(
    frame: pd.DataFrame, rules: TableRules, path: Path | str, *, taken: list[str]
) -> tuple[list[str], list[str]]:
    """Return the column of classes, or those of 0 and 1, and other columns that it might be."""
    given = rules.columns.get("class", "")
    if given and given not in frame:
        return _listed(given), []
    usual = [name for name in _usual(frame, "class", given) if name not in taken]
    if not usual and (marks := _find_marks(frame, path)):
        return marks, []
    if not usual:
        raise InputError(
            f"{path}: no class column under a usual name; it has {', '.join(frame)}; "
            "name it: class_column=..."
        )
    # One of names goes before one of numbers.
    usual.sort(key=lambda name: bool(_numbers(frame[name]).notna().all()))
    return usual[:1], usual[1:]


def _find_classes(
    frame: pd.DataFrame, rules: TableRules, path: Path | str, *, taken: list[str]
) -> Classes:
    """Read the class of each row; rows with several follow ``rules.multi_label``."""
    columns, others = _class_columns(frame, rules, path, taken=taken)
    marks = columns if len(columns) > 1 else []
    notes, ending = [], ""
    if marks:
        cells, several = _join_marks(frame, marks, path)
        notes.append(f"class in {len(marks)} columns of 0 and 1, {cells.name}")
    else:
        cells = frame[columns[0]]
        not_in = f" (not in '{chr(39).join(others)}')" if len(others) == 1 else ""
        not_in = f" (not in {', '.join(others)})" if len(others) > 1 else not_in
        notes.append(f"class in '{cells.name}'{not_in}")
        several = _split_cells(cells)
    many = several.map(len) > 1
    kept = pd.Series(True, index=frame.index)
    if many.any():
        count = f"{many.sum():,} of {len(cells):,} images have several classes"
        if rules.multi_label == "stop":
            raise InputError(
                f"{path}: {cells.name}: {count}, such as '{cells[many].iloc[0]}'; take the first "
                "of each: multi_label=first, or leave them out: multi_label=leave-out"
            )
        first = rules.multi_label == "first"
        notes.append(f"{count}: {'the first counts' if first else 'they are left out'}")
        kept, ending = (kept, "-firstlabel") if first else (~many, "")
    cells = several[kept].map(lambda each: each[0] if each else "").rename(cells.name)
    empty = cells.index[cells.str.casefold().isin(EMPTY)]
    if len(empty):
        who = frame[taken[0]][empty[0]] or f"line {empty[0] + 2}"
        raise InputError(
            f"{path}: {cells.name}: {len(empty)} empty, first of {who}; fill it in or remove the "
            "row"
        )
    named = _find_names(frame[kept], cells, taken) if not marks else None
    if named is not None:
        order = cells.groupby(named).first().map(float).sort_values().index.tolist()
        number_classes(order, where=path)  # refuses names that are nearly one
        notes.append(f"names of its numbers in '{named.name}'")
        labels, names = named.map({name: i for i, name in enumerate(order)}), tuple(order)
    else:
        numbers, names = number_classes(_whole_numbers(cells, path), where=path)
        labels = pd.Series(numbers, index=cells.index)
        if marks:  # in the order of the columns
            names = tuple(name for name in marks if name in set(names))
            labels = cells.map({name: i for i, name in enumerate(names)})
            absent = [name for name in marks if name not in names]
            notes += [f"no image of {', '.join(absent)}"] if absent else []
    return Classes(labels.reindex(frame.index, fill_value=-1), names, kept, notes, ending)


def _numbers(cells: pd.Series) -> pd.Series:
    return pd.to_numeric(cells, errors="coerce")


def _find_names(frame: pd.DataFrame, cells: pd.Series, taken: list[str]) -> pd.Series | None:
    """Return the column that has one name for each number of a column of numbered classes."""
    if _numbers(cells).isna().any():
        return None
    count = cells.nunique()
    for name in frame:
        words = frame[name]
        like = re.search(
            r"name|dx|class|label|diag|find|disease|desc|text|categ|title", name.lower()
        )
        if name in (*taken, cells.name) or not like or _numbers(words).notna().any():
            continue
        pairs = len(pd.DataFrame({"number": cells, "name": words}).drop_duplicates())
        if words.nunique() == count == pairs and count < len(frame) and (words != "").all():
            return words
    return None


def _find_marks(frame: pd.DataFrame, path: Path | str) -> list[str]:
    """Find the columns of 0 and 1 with one 1 in each row, if there is one such set alone."""
    binary = {
        name: frame[name].str.casefold().isin({"1", "1.0", "true"}).to_numpy()
        for name in frame
        if frame[name].str.casefold().isin(YES | NO).all()
        and not COVARIATES & set(re.split(r"[\W_]+", plain_name(name)))
        and _plain(name) not in (*FOLDS, *FLAGS)
    }
    present = {name: marks for name, marks in binary.items() if marks.any()}
    covers: list[list[str]] = []

    def extend(chosen: list[str], covered: np.ndarray) -> None:
        """Add one column after another that covers the first row without a 1, in all ways."""
        if len(covers) > 1:
            return
        if covered.all():
            covers.append(chosen)
            return
        row = int(np.argmin(covered))
        for name, marks in present.items():
            if marks[row] and not (marks & covered).any():
                extend([*chosen, name], covered | marks)

    if len(present) <= MOST_MARKS:
        extend([], np.zeros(len(frame), dtype=bool))
    covers = [cover for cover in covers if len(cover) > 1]
    if len(covers) == 1:
        # Columns of 0 alone are classes without an image, if they lie among the others.
        order = list(frame)
        low, high = (f(map(order.index, covers[0])) for f in (min, max))
        near = [n for n in order[low : high + 2] if n in binary and n not in present]
        return [name for name in order if name in {*covers[0], *near}]
    if len(present) > 1:
        why = "more than one set of them has" if covers else "no set of them has"
        names = ", ".join(list(binary)[:8]) + (", ..." if len(binary) > 8 else "")
        raise InputError(
            f"{path}: no class column under a usual name; columns of 0 and 1 are {names}, but "
            f"{why} one 1 in each row; name those of the classes: class_column=A,B,C"
        )
    return []


def _join_marks(
    frame: pd.DataFrame, marks: list[str], path: Path | str
) -> tuple[pd.Series, pd.Series]:
    """Return the classes that columns of 0 and 1 mark in each row, as text and as lists."""
    lower = frame[marks].apply(lambda column: column.str.casefold())
    odd = ~lower.isin(YES | NO).all(axis=1)
    if odd.any():
        raise InputError(f"{path}: line {odd.idxmax() + 2}: expected 0 or 1 in {', '.join(marks)}")
    yes = lower.isin(YES).to_numpy()
    lists = [[name for name, mark in zip(marks, row, strict=True) if mark] for row in yes]
    several = pd.Series(lists, index=frame.index)
    return several.map("|".join).rename(f"{marks[0]} to {marks[-1]}"), several


def _split_cells(cells: pd.Series) -> pd.Series:
    """Return the classes of each cell as a list, of one unless it has several.

    Bars, semicolons and lists in brackets separate classes; a comma, slash, plus or ampersand does
    where each part is a class of its own elsewhere.
    """
    listed = cells.str.fullmatch(r"\[.*\]")
    plain = cells.where(~listed, cells.str.strip("[]").str.replace(r"['\"]", "", regex=True))
    whole = set(plain.str.strip())

    def split(cell: str, inside: bool) -> list[str]:
        for mark in ("|", ";", ",", "/", "+", "&"):
            parts = list(dict.fromkeys(part.strip() for part in cell.split(mark) if part.strip()))
            sure = mark in "|;" or (inside and mark == ",")
            if mark in cell and parts and (sure or (len(parts) > 1 and set(parts) <= whole)):
                return parts
        return [cell.strip()]

    return pd.Series([split(*pair) for pair in zip(plain, listed, strict=True)], cells.index)


def _whole_numbers(values: pd.Series, path: Path | str) -> list[str]:
    """Read labels such as 1.0, which a table with gaps was saved with, as the integers they are."""
    numbers = _numbers(values)
    if numbers.isna().any() or values.str.isdecimal().all():
        return list(values)
    for text in values[(numbers % 1 != 0) | (numbers < 0)]:
        raise InputError(
            f"{path}: {values.name}: expected names or integers from 0 as classes, got {text}; "
            "name the column of classes: class_column=..."
        )
    return list(numbers.astype("int64").astype(str))


def _find_parts(
    frame: pd.DataFrame, rules: TableRules, path: Path, *, taken: list[str]
) -> tuple[pd.Series, list[str], str]:
    """Return the given part of each row, ``?`` of one to leave out; notes; and the fold tested."""
    none = pd.Series("", index=frame.index)
    given = rules.columns.get("split", "")
    by_name = {_plain(name): name for name in reversed(list(frame)) if name not in taken}
    flags = {by_name[flag]: part for flag, part in FLAGS.items() if flag in by_name}
    names = [n for n in _usual(frame, "split", "") if n not in taken]
    folds = [by_name[name] for name in FOLDS if name in by_name]
    maybe = [by_name[name] for name in MAYBE_SPLIT if name in by_name]
    all_found = [*names, *flags, *folds, *maybe]
    if given == "none" and given not in frame:
        passed = [f"the split given in '{all_found[0]}' is passed over"] if all_found else []
        return none, ["no given split", *passed], ""
    notes = []
    if not given:
        for name in maybe:
            words = sorted(set(frame[name]))
            split_like = any(SPLIT_WORD.search(plain_name(word)) for word in words)
            if split_like or _numbers(frame[name]).notna().all():
                continue
            all_found.remove(name)
            notes.append(f"'{name}' is taken for no split: {', '.join(words[:4])}")
    found = [given] if given else [*(folds if rules.test_fold else ()), *all_found]
    if not found:
        if rules.test_fold:
            raise InputError(f"test_fold: {path} has no column of folds; name it: split_column=...")
        return none, ["no given split", *notes], ""
    column = found[0]
    cells = frame[column].str.casefold()
    if cells.isin(EMPTY).all():
        return none, ["no given split", f"'{column}' is empty", *notes], ""
    rest = [name for name in all_found if name != column and name not in flags]
    notes += [f"'{name}' is passed over: the split is given in '{column}'" for name in rest]
    notes.insert(0, f"split in '{column}'")
    if rules.test_fold:
        tested = frame[column].map(_same_number) == _same_number(rules.test_fold)
        if not tested.any():
            some = ", ".join(sorted(set(frame[column]))[:10])
            raise InputError(f"test_fold: expected one of {some}, got '{rules.test_fold}'")
        parts = pd.Series(np.where(tested, "test", "train"), index=frame.index)
        parts = parts.mask(cells.isin(EMPTY), "")
    elif column in flags:
        parts = _read_flags(frame, flags if not given else {column: flags[column]})
    elif _numbers(cells[~cells.isin(EMPTY)]).notna().all():
        some = ", ".join(sorted(set(frame[column]), key=lambda text: (len(text), text))[:10])
        raise InputError(
            f"{path}: {column}: the folds {some} are given; say which is tested, such as "
            f"test_fold={frame[column].iloc[0]}, or draw another split: split_column=none"
        )
    else:
        words = cells.str.replace(r"[\W_]*(?:set|split)$", "", regex=True)
        parts = words.map(SPLIT_WORDS).fillna("")
    strange = frame[column][parts == ""].replace("", "blank")
    if len(strange):
        counts = Counter(strange).most_common()
        shown = ", ".join(f"'{word}' ({count:,})" for word, count in counts[:5])
        shown += f" and {len(counts) - 5} more" if len(counts) > 5 else ""
        what = f"{column}: {len(strange):,} of {len(frame):,} rows are not train, val or test"
        if rules.unclear_split == "stop":
            raise InputError(
                f"{path}: {what}: {shown}; write the part of each, leave those rows out: "
                "unclear_split=leave-out, or draw another split: split_column=none"
            )
        notes.append(f"left out: {what}: {shown}")
        parts = parts.mask(parts == "", "?")
    return parts, notes, rules.test_fold


def _same_number(text: str) -> str:
    """Write 1.0 and 01 as 1, other texts as they are."""
    return re.sub(r"\.0+$", "", text).lstrip("0") or text[:1]


def _read_flags(frame: pd.DataFrame, flags: dict[str, str]) -> pd.Series:
    """Return the part that 0/1 columns such as ``is_test`` give each row; empty where unclear."""
    yes = {name: frame[name].str.casefold().isin(YES) for name in flags}
    clear = pd.Series(True, index=frame.index)
    for name in flags:
        clear &= frame[name].str.casefold().isin(YES | NO)
    count = sum(each.astype(int) for each in yes.values())
    parts = pd.Series("", index=frame.index)
    for name, part in flags.items():
        parts = parts.mask(yes[name], part)
    # Without a column of its own, the rest is for training, or for testing.
    other = "train" if "train" not in flags.values() else "test"
    if other not in flags.values():
        parts = parts.mask(count == 0, other)
    return parts.mask(~clear | (count > 1), "")
