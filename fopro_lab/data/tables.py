"""Find the table of a data set's images, read its cells, and say what its columns mean."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from fopro_lab.config import DataConfig
from fopro_lab.data import readers
from fopro_lab.data.readers import SPLIT_WORDS, Listing, file_key, plain_name, table_ending
from fopro_lab.errors import InputError, said_of
from fopro_lab.io import some

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
FLAGS |= {"train": "train", "val": "val", "test": "test"}
MAYBE_SPLIT = "set phase dataset".split()  # of something else, unless it has words of a split
# How tables write an empty cell, and how people write that a group or a source is not known, in
# lower case; a class may well be called 'none' or 'unknown'.
EMPTY = frozenset({"", "nan", "na", "n/a", "<na>", "null", "#n/a"})
NOT_KNOWN = EMPTY | frozenset(
    {"none", "unknown", "not known", "unspecified", "missing", "not available", "n.a.", "-", "--"}
    | {"?", ".", "nil", "nat", "undefined"}
)
YES, NO = {"1", "1.0", "true", "yes", "y"}, {"0", "0.0", "false", "no", "n"}
SPLIT_WORD = re.compile(r"(?<![a-z])(?:train|valid|val|test|dev)", re.IGNORECASE)
ANOTHER = "draw another split: split_column=none"  # the way out of a given one
ROW_NUMBERS = {"index", "indexes", "indices", "row", "row_index", "rowindex"}
PROSE = re.compile(r"(read_?me|licen[cs]e|attribution|citation|notice|changelog|source).*")


def find_table(
    root: Path, rules: DataConfig, *, images_below: Path
) -> tuple[Path | None, list[str]]:
    """Find the one table below a folder that names images below another.

    Returns the table, None if no file is a table, and notes on others that are passed over. Tables
    of which none fits, or several do, are an `InputError`.
    """
    stems = _stems(images_below)
    others = [file for file in readers.sort_files(root)[1] if table_ending(file) is not None]
    fit, reasons = list[str](), dict[str, str]()  # tables that do, and why others do not
    for file in others:
        sure = table_ending(file) not in readers.TEXTS
        stem = plain_name(Path(file).name.partition(".")[0])
        if not sure and (PROSE.fullmatch(stem) or stem in stems):  # an image's own annotation
            continue
        try:
            frame = readers.read_cells(root / file)
            sure = sure or any(_known(frame[name].head(50), stems).any() for name in frame)
            if len(frame.columns) > 1:
                _check_given(frame, rules)
                image = _find_image_column(frame, rules, stems)
                if not _known(frame[image], stems).any():
                    such = frame[image].iloc[0]
                    raise InputError(f"none of its images, such as {such}, is there")
                _class_columns(frame, rules, image)
                fit.append(file)
        except InputError as error:
            if sure:
                reasons[file] = f"{file} ({str(error).removeprefix(f'{root / file}: ')})"
    if not fit and not reasons:
        return None, []
    if len(fit) != 1:
        found = f"several tables, {', '.join(fit[:4])}" if fit else some([*reasons.values()])
        way_out = "name it: dataset=TABLE image_dir=FOLDER; or take folders as classes: "
        rule = f"expected one table of its images, found {found}"
        raise InputError(f"{root}: {rule}; {way_out}labels_from=folders")
    table = fit[0]
    # Of lists beside it reading the table tells.
    beside = {table, *(str(file.relative_to(root)) for file in list_parts(root / table))}
    passed = [file for file in others if file in reasons or SPLIT_WORD.search(file)]
    return root / table, not_used([file for file in passed if file not in beside])


def list_parts(place: Path) -> list[Path]:
    """List files in a folder, or beside a table, that are called after parts of a split."""
    beside = sorted((place if place.is_dir() else place.parent).iterdir())
    kinds = (*readers.TABLES, *readers.TEXTS)
    named = [file for file in beside if SPLIT_WORD.search(file.name)]
    return [f for f in named if f != place and f.is_file() and table_ending(f.name) in kinds]


def not_used(files: Sequence[str]) -> list[str]:
    """Return a note on files that are passed over, if there are any."""
    return [f"not used: {', '.join(files[:4])}{', ...' * (len(files) > 4)}"] if files else []


def _refuse_list(file: Path, images: pd.Series) -> None:
    """Refuse a file that seems to say which images of a table are of a part, but is not read."""
    lines: list[list[str]] = []
    with suppress(InputError):  # no text
        lines = [cells for _, cells in readers.read_rows(file)]
    named = {file_key(cell) for line in lines for cell in (*line, " ".join(line))}
    numbered = ROW_NUMBERS.intersection(map(str.casefold, lines[0])) if lines else ()
    if numbered or named.intersection(images.map(file_key)):
        what = f"{file.name} beside it seems to list images of one part, and is not read"
        raise InputError(f"{what}; write the part of each into a column 'split', or {ANOTHER}")


def _stems(folder: Path) -> set[str]:
    """Return the names, without ending and in one form, of all files that are no tables."""
    files = itertools.chain(*readers.sort_files(folder))
    return {plain_name(readers.stem_of(file)) for file in files if table_ending(file) is None}


def _known(cells: pd.Series, stems: set[str]) -> pd.Series:
    """Tell which cells name an image, by their names without folders, case and ending."""
    return cells.map(lambda cell: file_key(cell) in stems)


def read_table(path: Path, *, root: Path, rules: DataConfig) -> Listing:
    """Read a table, a row per image, and find its images below a folder, at any depth.

    Columns that ``rules`` does not name are looked for under their usual names, the images also by
    their names on disk. Every guess is a note of the listing.
    """
    frame = readers.read_cells(path)
    total = len(frame)
    with said_of(str(path)):
        _check_given(frame, rules)
        column = _find_image_column(frame, rules, _stems(root))
        parts, part_notes = _find_parts(frame, rules, column, path)
        frame, parts = frame[parts != "?"], parts[parts != "?"]
        labels, names, class_notes, ending = _find_classes(frame, rules, column)
        frame, parts = frame.loc[labels.index], parts[labels.index]
        groups, group_notes, complete = _find_groups(frame, rules)
        images = frame[column]
        _refuse_empty(images, images.where(images == "", ""))
    source, *unused = _usual(frame, "source", rules) or [""]
    sources = frame[source] if source else pd.Series("", index=frame.index)
    readers.refuse_twice(images, where=path)
    how: Any = {"where": path, "way_out": "give the folder that holds them: image_dir=..."}
    how["leave_out"] = rules.unusable == "leave-out"
    paths, notes = readers.find_images(images, root, **how)
    readers.refuse_twice(paths, where=path)
    ending = f"-testfold{rules.test_fold}{ending}" if rules.test_fold else ending
    ending += f"-without{total - len(frame)}" if len(frame) < total else ""
    used = [f"image in '{column}'", class_notes[0], group_notes[0]]
    used += [f"source in '{source}'{_not_in(unused)}"] * bool(source)
    used.append(part_notes[0])
    about = {"groups": groups, "sources": _where_known(sources), "splits": parts}
    lists: Any = {kind: cells.tolist() for kind, cells in about.items()}
    listing = readers.list_files(images.tolist(), paths, (labels.tolist(), names), **lists)
    told = (f"{path.name}: {', '.join(used)}", *class_notes[1:], *group_notes[1:], *part_notes[1:])
    return listing._replace(notes=(*told, *notes), ending=ending, groups_known=complete)


def _check_given(frame: pd.DataFrame, rules: DataConfig) -> None:
    """Refuse named columns that there are not; ``none`` names none, commas several of classes."""
    for kind in USUAL_NAMES:
        name = getattr(rules, f"{kind}_column")
        listed = kind == "class" and all(part in frame for part in _listed(name))
        if name and not listed and (name != "none" or kind in ("image", "class")):
            readers.check_column(name, frame)


def _listed(name: str) -> list[str]:
    return [part.strip() for part in name.split(",")]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", plain_name(name))


def _usual(frame: pd.DataFrame, kind: str, rules: DataConfig) -> list[str]:
    """Return the given column, or those under usual names of a kind, the most usual first."""
    given: str = getattr(rules, f"{kind}_column")
    if given:
        return [given] if given in frame else []
    return _under(frame, USUAL_NAMES[kind].split())


def _under(frame: pd.DataFrame, names: Iterable[str]) -> list[str]:
    """Return the columns under some plain names, in the order of these."""
    by_name = {_plain(name): name for name in reversed(list(frame))}  # the first of twins
    return [by_name[name] for name in names if name in by_name]


def _find_image_column(frame: pd.DataFrame, rules: DataConfig, stems: set[str]) -> str:
    """Return the column of images: as given, under a usual name, or by the names on disk."""
    usual = _usual(frame, "image", rules)
    if rules.image_column:
        return rules.image_column
    heads = _known(pd.Series(list(frame)), stems)
    if any(_known(frame[name], stems).all() for name in frame.columns[heads]):
        raise InputError("expected names of columns in the first line, got an image's row")
    for name in usual:
        if _known(frame[name], stems).any():
            return name
    known = [n for n in frame if frame[n].is_unique and _known(frame[n], stems).all()]
    if len(known) == 1 or (usual and not known):
        return [*known, *usual][0]
    raise _no_column(frame, "image")


def _not_in(others: Sequence[str]) -> str:
    return f" (not in {', '.join(map(repr, others))})" if others else ""


def _no_column(frame: pd.DataFrame, kind: str) -> InputError:
    has = f"it has {', '.join(frame)}"
    return InputError(f"no {kind} column under a usual name; {has}; name it: {kind}_column=...")


def _refuse_empty(cells: pd.Series, images: pd.Series) -> None:
    empty = cells.str.casefold().isin(EMPTY)
    if empty.any():
        who = images[empty.idxmax()] or f"line {empty.idxmax() + 2}"
        what = f"{cells.name}: {empty.sum()} empty, first of {who}"
        raise InputError(f"{what}; fill it in or remove the row")


def _where_known(cells: pd.Series) -> pd.Series:
    return cells.mask(cells.str.casefold().isin(NOT_KNOWN), "")


def _find_groups(frame: pd.DataFrame, rules: DataConfig) -> tuple[pd.Series, list[str], bool]:
    """Return the lesion or patient of each image, notes, and whether all are known."""
    columns = {name: _where_known(frame[name]) for name in _usual(frame, "group", rules)}
    empty = [name for name, cells in columns.items() if (cells == "").all()]
    notes = [f"'{name}' is empty, so no group is taken from it" for name in empty]
    used, *others = [name for name in columns if name not in empty] or [""]
    if not used:
        return pd.Series("", index=frame.index), ["no group", *notes], False
    groups = columns[used]
    way_out = "; or pass the column over: group_column=none"
    readers.refuse_alike(groups, where=f"{used}: groups", way_out=way_out)
    for name in others:
        if gaps := int(((groups == "") & (columns[name] != "")).sum()):
            way_out = f"fill these gaps, or name the one that counts: group_column={name}"
            raise InputError(f"{used}: {gaps:,} images have none, but a {name}; {way_out}")
    return groups, [f"group in '{used}'{_not_in(others)}", *notes], bool((groups != "").all())


def _class_columns(
    frame: pd.DataFrame, rules: DataConfig, image: str
) -> tuple[list[str], list[str]]:
    """Return the column of classes, or those of 0 and 1, and other columns that it might be."""
    given = rules.class_column
    if given and given not in frame:
        return _listed(given), []
    usual = [name for name in _usual(frame, "class", rules) if name != image]
    if usual:  # one of names goes before one of numbers
        usual.sort(key=lambda name: bool(_numbers(frame[name]).notna().all()))
        return usual[:1], usual[1:]
    if marks := _find_marks(frame):
        return marks, []
    raise _no_column(frame, "class")


def _find_classes(
    frame: pd.DataFrame, rules: DataConfig, image: str
) -> tuple[pd.Series, tuple[str, ...], list[str], str]:
    """Return the label of each row that is kept, class names, notes, and what the name says of it.

    Rows with several classes follow ``rules.multi_label``.
    """
    columns, others = _class_columns(frame, rules, image)
    marks, ending = columns if len(columns) > 1 else [], ""
    if marks:
        several = _read_marks(frame, marks)
        notes = [f"class in {len(marks)} columns of 0 and 1, {several.name}"]
    else:
        several = _split_cells(frame[columns[0]])
        notes = [f"class in '{several.name}'{_not_in(others)}"]
    many = several.map(len) > 1
    if many.any():
        count = f"{many.sum():,} of {len(frame):,} images have several classes"
        if rules.multi_label == "stop":
            such = f"such as '{'|'.join(several[many].iloc[0])}'"
            way_out = "take the first: multi_label=first, or leave them out: multi_label=leave-out"
            raise InputError(f"{several.name}: {count}, {such}; {way_out}")
        if rules.multi_label == "first":
            ending = "-firstlabel"
        else:
            several = several[~many]
        notes.append(f"{count}: {'the first counts' if ending else 'they are left out'}")
    cells = several.map(lambda each: each[0] if each else "")
    frame = frame.loc[cells.index]
    _refuse_empty(cells, frame[image])
    order: list[str] = []
    if marks:
        order = [name for name in marks if name in set(cells)]
        absent = [name for name in marks if name not in order]
        notes += [f"no image of {', '.join(absent)}"] if absent else []
    else:
        cells = _whole_numbers(cells)
    names = tuple(order) or readers.number_classes(cells.tolist())[1]
    return cells.map({name: number for number, name in enumerate(names)}), names, notes, ending


def _numbers(cells: pd.Series) -> pd.Series:
    return pd.to_numeric(cells, errors="coerce")


def _find_marks(frame: pd.DataFrame) -> list[str]:
    """Return the columns of 0 and 1, if they have one 1 in each row: then they are classes."""
    lower = frame.apply(lambda cells: cells.str.casefold())
    binary = frame.columns[lower.isin(YES | NO).all()]
    marks = [name for name in binary if _plain(name) not in (*FOLDS, *FLAGS)]
    if len(marks) > 1 and (lower[marks].isin(YES).sum(axis=1) != 1).any():
        names = ", ".join(marks[:8]) + (", ..." if len(marks) > 8 else "")
        found = f"the columns of 0 and 1, {names}, do not have one 1 in each row"
        way_out = "name those of the classes: class_column=A,B,C"
        raise InputError(f"no class column under a usual name; {found}; {way_out}")
    return marks if len(marks) > 1 else []


def _read_marks(frame: pd.DataFrame, marks: list[str]) -> pd.Series:
    """Return the classes that columns of 0 and 1 mark in each row, as lists."""
    lower = frame[marks].apply(lambda cells: cells.str.casefold())
    odd = ~lower.isin(YES | NO).all(axis=1)
    if odd.any():
        raise InputError(f"line {odd.idxmax() + 2}: expected 0 or 1 in {', '.join(marks)}")
    lists = [list(itertools.compress(marks, row)) for row in lower.isin(YES).to_numpy()]
    return pd.Series(lists, index=frame.index, name=f"{marks[0]} to {marks[-1]}")


def _split_cells(cells: pd.Series) -> pd.Series:
    """Return the classes of each cell as a list, of one unless it has several.

    Bars, semicolons and lists in brackets separate classes; a comma, slash, plus or ampersand does
    where each part is a class of its own elsewhere.
    """
    listed = cells.str.fullmatch(r"\[.*\]")
    inside = cells.str.strip("[]").str.replace(r"['\"]", "", regex=True).str.replace(",", "|")
    plain = cells.mask(listed, inside).str.strip()
    whole = set(plain)

    def split(cell: str) -> list[str]:
        sure = re.search(r"[|;]", cell)
        parts = [part.strip() for part in re.split(r"[|;]" if sure else r"[,/+&]", cell)]
        parts = list(dict.fromkeys(filter(None, parts)))
        return parts if parts and (sure or set(parts) <= whole) else [cell]

    return plain.map(split).rename(cells.name)


def _whole_numbers(values: pd.Series) -> pd.Series:
    """Read labels such as 1.0, which a table with gaps was saved with, as the integers they are."""
    numbers = _numbers(values)
    if numbers.isna().any() or values.str.isdecimal().all():
        return values
    for text in values[(numbers % 1 != 0) | (numbers < 0)]:
        rule = f"{values.name}: expected names or integers from 0 as classes, got {text}"
        raise InputError(f"{rule}; name the column of classes: class_column=...")
    return numbers.astype("int64").astype(str)


def _find_parts(
    frame: pd.DataFrame, rules: DataConfig, image: str, path: Path
) -> tuple[pd.Series, list[str]]:
    """Return the given part of each row, ``?`` of one to leave out, and notes."""
    rest, lists = frame.drop(columns=image), list_parts(path)
    given, unused = rules.split_column, not_used([file.name for file in lists])
    flags = {name: part for flag, part in FLAGS.items() for name in _under(rest, [flag])}
    folds = _under(rest, FOLDS)
    found = [*_under(rest, USUAL_NAMES["split"].split()), *flags, *folds]
    for name in _under(rest, MAYBE_SPLIT):
        if frame[name].str.contains(SPLIT_WORD).any() or _numbers(frame[name]).notna().all():
            found.append(name)
    none = pd.Series("", index=frame.index)
    if given == "none" and given not in frame:
        passed = [f"the split given in '{name}' is passed over" for name in found[:1]]
        return none, ["no given split", *passed, *unused]
    chosen = [given] if given else [*(folds if rules.test_fold else ()), *found]
    column = next((n for n in chosen if not frame[n].str.casefold().isin(EMPTY).all()), "")
    if not column and rules.test_fold:
        raise InputError("test_fold: there is no column of folds; name it: split_column=...")
    if not column:
        for part_list in lists:
            _refuse_list(part_list, frame[image])
        return none, ["no given split", *unused]
    cells, words = frame[column].str.casefold(), sorted(sorted(set(frame[column])), key=len)
    empty = cells.isin(EMPTY)
    others = [name for name in found if name != column and name not in flags]
    passed = [f"'{name}' is passed over: the split is given in '{column}'" for name in others]
    notes = [f"split in '{column}'", *passed, *unused]
    if rules.test_fold:
        # Words and negative numbers beside numbered folds mark images that are held out of all.
        is_fold = frame[column].str.fullmatch(r"(?!-).*\d.*")
        same = _numbers(frame[column]) == pd.to_numeric(rules.test_fold, errors="coerce")
        tested = is_fold & (same | (frame[column] == rules.test_fold))
        if not tested.any():
            numbered = ", ".join(word for word in words[:10] if word)
            rule = f"expected one of the numbered folds in {numbered}"
            raise InputError(f"test_fold: {rule}, got '{rules.test_fold}'")
        parts = tested.map({True: "test", False: "train"}).where(is_fold, "")
    elif column in flags:
        parts = _read_flags(frame, {column: flags[column]} if given else flags)
    elif _numbers(cells[~empty]).notna().all():
        way_out = f"say which is tested, such as test_fold={frame[column][~empty].iloc[0]}"
        given_folds = f"the folds {', '.join(words[:10])} are given"
        raise InputError(f"{column}: {given_folds}; {way_out}, or {ANOTHER}")
    else:
        plain = cells.str.replace(r"[\W_]*(?:set|split)$", "", regex=True)
        parts = plain.map(SPLIT_WORDS).fillna("")
    strange = frame[column][parts == ""].replace("", "blank")
    return parts.replace("", "?"), notes + _unclear(strange, frame, column, rules)


def _unclear(words: pd.Series, frame: pd.DataFrame, column: str, rules: DataConfig) -> list[str]:
    """Note rows of no part, whose words are given; refuse them unless they may be left out."""
    if words.empty:
        return []
    shown = some([f"'{word}' ({count:,})" for word, count in Counter(words).most_common()])
    known = "of no numbered fold" if rules.test_fold else "not train, val or test"
    what = f"{column}: {len(words):,} of {len(frame):,} rows are {known}: {shown}"
    if rules.unclear_split == "stop":
        way_out = "write the part of each, leave those rows out: unclear_split=leave-out"
        raise InputError(f"{what}; {way_out}, or {ANOTHER}")
    return [f"left out: {what}"]


def _read_flags(frame: pd.DataFrame, flags: dict[str, str]) -> pd.Series:
    """Return the part that 0/1 columns such as ``is_test`` give each row; empty where unclear."""
    cells = frame[list(flags)].apply(lambda column: column.str.casefold())
    yes = cells.isin(YES)
    unclear = ~cells.isin(YES | NO).all(axis=1) | (yes.sum(axis=1) > 1)
    # Without a column of its own, the rest is for training, or for testing.
    rest = next((part for part in ("train", "test") if part not in flags.values()), "")
    return yes.idxmax(axis=1).map(flags).mask(~yes.any(axis=1), rest).mask(unclear, "")
