"""Tiny sources in their publishers' layouts, for the loopback."""

import hashlib
import io
import zipfile
from dataclasses import replace

import numpy as np
from PIL import Image

from fopro_lab.data.fetch import RemoteFile, Source, find_source
from tests.fetching.loopback import Shop

CODES = "MEL NV BCC AK BKL DF VASC SCC UNK".split()
LESIONS = ("HAM_0000118", "HAM_0000118", "BCN_0003884", "MSK4_0011169", "", "BCN_0000001")
ISIC_IDS = tuple(
    f"ISIC_{number:07d}" + ("_downsampled" if number == 4 else "") for number in range(6)
)
ISIC_MARKS = ("NV", "NV", "MEL", "NV", "DF", "MEL")


def image(seed: int, side: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return stream.getvalue()


def isic2019_files() -> dict[str, bytes]:
    truth = ["image," + ",".join(CODES)]
    known = ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for name, mark, lesion in zip(ISIC_IDS, ISIC_MARKS, LESIONS, strict=True):
        truth.append(name + "," + ",".join("1.0" if code == mark else "0.0" for code in CODES))
        known.append(f"{name},55.0,head/neck,{lesion},female")
    images = {
        f"ISIC_2019_Training_Input/{name}.jpg": image(number)
        for number, name in enumerate(ISIC_IDS)
    }
    attribution = {"ISIC_2019_Training_Input/ATTRIBUTION.txt": b"by its authors"}
    return {
        "ISIC_2019_Training_GroundTruth.csv": "\n".join(truth).encode(),
        "ISIC_2019_Training_Metadata.csv": "\n".join(known).encode(),
        "ISIC_2019_Training_Input.zip": zipped(images | attribution),
    }


def hyperkvasir_zip() -> bytes:
    places = (
        "lower-gi-tract/anatomical-landmarks/cecum",
        "lower-gi-tract/pathological-findings/polyps",
        "upper-gi-tract/anatomical-landmarks/z-line",
    )
    files = {
        f"labeled-images/{place}/{place[-4:]}-{number}.jpg": image(number)
        for place in places
        for number in range(2)
    }
    return zipped(files | {"labeled-images/image-labels.csv": b"Video file,Organ\n"})


def medmnist_npz(*, grey: bool = False, side: int = 28) -> bytes:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 8), ("val", 7), ("test", 7)):
        shape = (count, side, side) if grey else (count, side, side, 3)
        arrays[f"{part}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count, dtype=np.uint8) % 7)[:, None]
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def serve(shop: Shop, folder: str, files: dict[str, bytes]) -> None:
    shop.files |= {f"{folder}/{name}": content for name, content in files.items()}


def published(name: str, files: dict[str, bytes]) -> Source:
    """Return a named source whose published hashes are those of tiny files."""

    def own(file: RemoteFile) -> RemoteFile:
        kind = file.known.partition(":")[0]
        digest = hashlib.new(kind, files[file.name]).hexdigest() if kind else ""
        return replace(file, known=f"{kind}:{digest}" if kind else "", size=0)

    source = find_source(name)
    return replace(source, files=tuple(own(file) for file in source.files if file.name in files))
