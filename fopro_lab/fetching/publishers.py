"""The named sources: where each lies, how it is known to be whole, who asks for what."""

import json
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files

from fopro_lab.errors import InputError

HERE = files("fopro_lab.fetching")
ISIC2019 = "https://isic-challenge-data.s3.amazonaws.com/2019/"
FOPRO = (
    "https://raw.githubusercontent.com/xmed-lab/FoPro-KD/"
    "fd66cae333007e3113dfefcefea49827e1634aae/data/ham2019/"
)
KVASIR_SPLITS = (
    "https://raw.githubusercontent.com/simula/hyper-kvasir/"
    "49c0d0f915b57ac0b6cb18b49776ffa61c5512e3/official_splits/"
)
MEDMNIST = "https://zenodo.org/records/10519652/files/"
SIZES = (28, 64, 128, 224)
KINDS = ("images", "labels")
PLAIN_NAMES = ("isic2019", "hyperkvasir", "fopro-splits", "moco-v2")


@dataclass(frozen=True)
class RemoteFile:
    """One file at a publisher.

    Attributes:
        name: Path below the source's folder; of an archive, its file name.
        url: Its address.
        known: Published hash, ``sha256:...`` or ``md5:...``, whole or its first digits; empty
            where the publisher gives none.
        size: Bytes, about, for the check of free disk; 0 where unknown.
        unpacked: Of an archive: most bytes that it may unpack to; 0 is no archive.
        members: Of an archive: most files and folders that it may hold.
        holds: Of an archive: what must lie in the source's folder when it is unpacked.

    Example:
        >>> RemoteFile("a.csv", "https://example.org/a.csv").known
        ''
    """

    name: str
    url: str
    known: str = ""
    size: int = 0
    unpacked: int = 0
    members: int = 0
    holds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What a name stands for.

    Attributes:
        name: As the user writes it.
        files: What is downloaded.
        licence: The terms, in words.
        citation: The works to cite.
        home: The publisher's page.
        note: What else one should know.

    Example:
        >>> find_source("moco-v2").folder, find_source("medmnist:derma").folder
        ('moco-v2', 'medmnist-derma')
    """

    name: str
    files: tuple[RemoteFile, ...]
    licence: str
    citation: str
    home: str
    note: str = ""

    @property
    def folder(self) -> str:
        """Name of the folder in which it lies."""
        return self.name.replace(":", "-")

    @property
    def size(self) -> int:
        """Bytes to download, about, as far as they are known."""
        return sum(file.size for file in self.files)

    @property
    def places(self) -> tuple[str, ...]:
        """What must lie in the folder when all is there."""
        return tuple(place for file in self.files for place in file.holds or (file.name,))


def source_names() -> list[str]:
    """List the names, MedMNIST's in their smallest size.

    Example:
        >>> source_names()[:5]
        ['isic2019', 'hyperkvasir', 'fopro-splits', 'moco-v2', 'medmnist:path']
    """
    return [*PLAIN_NAMES, *(f"medmnist:{name}" for name in medmnist_facts())]


def find_source(name: str) -> Source:
    """Return the source of a name.

    Args:
        name: One of `source_names`; MedMNIST's also with a size, ``medmnist:derma-224``.

    Returns:
        The source.

    Raises:
        InputError: For an unknown name, with those that are near.

    Example:
        >>> find_source("medmnist:derma-64").files[0].url
        'https://zenodo.org/records/10519652/files/dermamnist_64.npz?download=1'
        >>> find_source("isic2018")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: source: expected isic2019, hyperkvasir, ... got 'isic2018'; ...
    """
    kind, _, rest = name.partition(":")
    if kind == "medmnist":
        return _medmnist(rest)
    makers = {
        "isic2019": _isic2019,
        "hyperkvasir": _hyperkvasir,
        "fopro-splits": _fopro_splits,
        "moco-v2": _moco,
    }
    if name not in makers:
        near = get_close_matches(name, [*PLAIN_NAMES, "medmnist:derma"], n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see `fopro data list`"
        raise InputError(
            f"source: expected {', '.join(PLAIN_NAMES)} or medmnist:NAME, got '{name}'; {hint}"
        )
    return makers[name]()


def published_hashes(name: str) -> dict[str, str]:
    """Return the SHA-256 of a source's files, of those whose publisher's bytes are pinned.

    Args:
        name: As of `find_source`.

    Returns:
        By path below the source's folder, 64 hexadecimal digits each.

    Example:
        >>> published_hashes("hyperkvasir")["official_splits/2_fold_split.csv"][:8]
        'e9bc264d'
    """
    return {f.name: f.known[7:] for f in find_source(name).files if f.known[:7] == "sha256:"}


def medmnist_facts() -> dict[str, dict]:
    """Return what MedMNIST's package (3.0.2) publishes on its 2-D sets of one label a picture.

    Returns:
        By short name: channels, pictures (train, val, test), licence, md5 by size, classes.

    Example:
        >>> medmnist_facts()["derma"]["pictures"]
        [7007, 1003, 2005]
    """
    facts: dict[str, dict] = json.loads((HERE / "medmnist.json").read_text(encoding="utf-8"))
    return facts


def _isic2019() -> Source:
    stem = "ISIC_2019_Training_"
    archive = RemoteFile(
        *(f"{stem}Input.zip", f"{ISIC2019}{stem}Input.zip"),
        size=9_771_618_190,
        unpacked=10_500_000_000,  # JPEGs: the zip saves next to nothing
        members=26_000,
        holds=(f"{stem}Input",),
    )
    tables = tuple(
        RemoteFile(f"{stem}{table}.csv", f"{ISIC2019}{stem}{table}.csv", size=1_300_000)
        for table in ("GroundTruth", "Metadata")
    )
    return Source(
        "isic2019",
        (*tables, archive),
        licence="CC BY-NC 4.0",
        citation=(
            "Tschandl P., Rosendahl C., Kittler H.: The HAM10000 dataset. Sci. Data 5, 180161 "
            "(2018). Codella N. C. F. et al.: Skin Lesion Analysis Toward Melanoma Detection, "
            "ISBI 2017 challenge, arXiv:1710.05006. Combalia M. et al.: BCN20000: Dermoscopic "
            "Lesions in the Wild, arXiv:1908.02288."
        ),
        home="https://challenge.isic-archive.com/data/#2019",
    )


def _hyperkvasir() -> Source:
    archive = RemoteFile(
        "hyper-kvasir-labeled-images.zip",
        "https://datasets.simula.no/downloads/hyper-kvasir/hyper-kvasir-labeled-images.zip",
        size=3_928_814_344,
        unpacked=4_500_000_000,
        members=12_000,
        holds=("labeled-images",),
    )
    hashes = {
        2: "e9bc264da8dd4ce5ebd6654080eb9ec8a00fd28c3d03a75a2c80b1eb5a096c06",
        5: "0230b465bdf73c23e949c74e1d4d68c4905a758195ea6b69b10f32c71a3be426",
    }
    splits = tuple(
        RemoteFile(
            f"official_splits/{folds}_fold_split.csv",
            f"{KVASIR_SPLITS}{folds}_fold_split.csv",
            known=f"sha256:{digest}",
            size=621_410,
        )
        for folds, digest in hashes.items()
    )
    return Source(
        "hyperkvasir",
        (*splits, archive),
        licence="CC BY 4.0",
        citation=(
            "Borgli H. et al.: HyperKvasir, a comprehensive multi-class image and video dataset "
            "for gastrointestinal endoscopy. Sci. Data 7, 283 (2020), "
            "doi 10.1038/s41597-020-00622-y."
        ),
        home="https://datasets.simula.no/hyper-kvasir/",
        note="the labelled pictures alone, and the official splits",
    )


def _fopro_splits() -> Source:
    lines = (HERE / "fopro_splits.sha256").read_text(encoding="ascii").splitlines()
    return Source(
        "fopro-splits",
        tuple(
            RemoteFile(name, FOPRO + name, known=f"sha256:{digest}", size=140_000)
            for digest, name in (line.split() for line in lines)
        ),
        licence="none stated; published for comparison with the paper, which asks to be cited",
        citation=(
            "Elbatel M., Marti R., Li X.: FoPro-KD: Fourier Prompted Effective Knowledge "
            "Distillation for Long-Tailed Medical Image Recognition. IEEE TMI 43(3), 954-965 "
            "(2024), doi 10.1109/TMI.2023.3327428. Elbatel M. et al.: Federated Model "
            "Aggregation via Self-supervised Priors. MICCAI 2023 Workshops, 334-346."
        ),
        home="https://github.com/xmed-lab/FoPro-KD",
        note="the 45 split files of ISIC-2019-LT, no pictures",
    )


def _moco() -> Source:
    name = "moco_v2_800ep_pretrain.pth.tar"
    url = f"https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/{name}"
    return Source(
        "moco-v2",
        (RemoteFile(name, url, known="md5:a04e12f8"),),
        licence="CC BY-NC 4.0",
        citation="Chen X. et al.: Improved Baselines with Momentum Contrastive Learning, "
        "arXiv:2003.04297 (2020).",
        home="https://github.com/facebookresearch/moco",
        note="ResNet-50, 800 epochs: the teacher moco-v2-resnet50",
    )


def _medmnist(rest: str) -> Source:
    short, dash, text = rest.partition("-")
    facts = medmnist_facts()
    size = int(text) if text.isdecimal() else 28
    if short not in facts or (dash and str(size) != text) or size not in SIZES:
        raise InputError(
            f"source: expected medmnist: with one of {', '.join(facts)}, and -64, -128 or -224 "
            f"for larger pictures, got 'medmnist:{rest}'"
        )
    fact = facts[short]
    pixels = sum(fact["pictures"]) * size * size * fact["channels"]
    stem = f"{short}mnist" + ("" if size == 28 else f"_{size}")
    parts = [f"{part}_{kind}.npy" for part in ("train", "val", "test") for kind in KINDS]
    archive = RemoteFile(
        f"{stem}.npz",
        f"{MEDMNIST}{stem}.npz?download=1",
        known=f"md5:{fact['md5'][str(size)]}",
        size=pixels,  # at most: it is compressed
        unpacked=pixels + 8 * sum(fact["pictures"]) + 100_000,  # labels and headers
        members=16,
        holds=tuple(parts),
    )
    return Source(
        f"medmnist:{short}" + ("" if size == 28 else f"-{size}"),
        (archive,),
        licence=fact["licence"],
        citation=(
            "Yang J. et al.: MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D "
            "biomedical image classification. Sci. Data 10, 41 (2023), "
            "doi 10.1038/s41597-022-01721-8; and the work behind this set, named on its page."
        ),
        home="https://medmnist.com",
    )
