"""The files of a published split: where they lie, and whether they are as published."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from fopro_lab.errors import InputError
from fopro_lab.fetching.publishers import published_hashes

BELOW = "official_splits"  # where HyperKvasir's repository keeps its files


def find_split_files(
    names: Sequence[str], *, files: Path | None, fetched: str, knob: str
) -> list[Path]:
    """Find the files of a published split.

    Args:
        names: Names of the files.
        files: Folder that holds them, also in ``official_splits`` below it, or the file itself if
            it is one; None looks where ``fopro data fetch`` puts them.
        fetched: Name under which they are fetched.
        knob: What chose these names, for the message.

    Returns:
        Their paths.

    Raises:
        InputError: If they were not fetched, or one is missing.

    Example:
        >>> find_split_files(["a.csv"], files=Path("nowhere"), fetched="toy", knob="fold=1")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: split_files: nowhere: no such folder or file
    """
    if files is None:
        from fopro_lab.fetching import fetched_place

        files = fetched_place(fetched)
        if files is None:
            raise InputError(
                f"split_files: {fetched} is not fetched; say `fopro data fetch {fetched}`, or give "
                f"the folder that holds {names[0]}"
            )
    if not files.exists():
        raise InputError(f"split_files: {files}: no such folder or file")
    if files.is_file() and len(names) == 1:
        return [files]
    folder = files / BELOW if (files / BELOW).is_dir() else files
    for name in names:
        if not (folder / name).is_file():
            raise InputError(
                f"split_files: {folder}: expected the published {name} for {knob}, found none"
            )
    return [folder / name for name in names]


def tell_altered(
    paths: Sequence[Path], names: Sequence[str], *, fetched: str
) -> tuple[str, list[str]]:
    """Compare the files of a split with the hashes of those that were published.

    Args:
        paths: The files that are read, as `find_split_files` returns them.
        names: Their published names, in the same order.
        fetched: Name under which they are fetched.

    Returns:
        What the protocol id adds, and what a reader should know: both empty if every byte is as
        published, line ends included; else ``/altered-`` with the start of a hash over the files.

    Raises:
        InputError: If a file cannot be read, or is another published file under this name, as
            when validation and test are exchanged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "5_fold_split.csv"
        ...     _ = path.write_text("made up")
        ...     tell_altered([path], [path.name], fetched="hyperkvasir")
        ('/altered-da10ba95', ['5_fold_split.csv: not the published file'])
    """
    known = {
        place.rpartition("/")[2]: digest for place, digest in published_hashes(fetched).items()
    }
    name_of = {digest: name for name, digest in known.items()}
    digests = []
    for path, name in zip(paths, names, strict=True):
        content = _read(path)
        digests.append(hashlib.sha256(content).hexdigest())
        # A file that was saved anew with other line ends is still the one it was.
        plain = hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()
        held = name_of.get(digests[-1]) or name_of.get(plain) or name
        if held != name:
            raise InputError(
                f"split_files: {path}: expected the published {name}, got the content of {held}; "
                "files are exchanged: give each its own name again"
            )
    altered = [name for name, own in zip(names, digests, strict=True) if own != known[name]]
    if not altered:
        return "", []
    over_all = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    what = "not the published file" + "s" * (len(altered) > 1)
    return f"/altered-{over_all[:8]}", [f"{', '.join(altered)}: {what}"]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
