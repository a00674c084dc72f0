import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fopro_lab.data import open_dataset, pack
from fopro_lab.data.decoding import FileReader, read_image, resize_square, survey, to_rgb
from fopro_lab.errors import InputError
from tests.conftest import refuses


def ramp(height: int = 20, width: int = 30) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8, y * 12, (x * y) % 256], axis=2).astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["box", "bilinear", "bicubic", "lanczos"])
def test_read_image_equals_pillow(tmp_path, interpolation):
    path = tmp_path / "a.png"  # the content decides, not the suffix
    Image.fromarray(ramp()).save(path, "JPEG", quality=80)
    with Image.open(path) as opened:
        pixels = np.asarray(opened)
        filter = Image.Resampling[interpolation.upper()]
        expected = np.asarray(opened.convert("RGB").resize((16, 16), filter))
    read = read_image(path, size=16, interpolation=interpolation)
    np.testing.assert_array_equal(read, expected)
    squared = resize_square(pixels, size=16, interpolation=interpolation)
    np.testing.assert_array_equal(squared, expected)
    np.testing.assert_array_equal(read_image(path), pixels)


def test_read_image_applies_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    Image.fromarray(ramp(16, 24)).save(tmp_path / "a.png", exif=exif)
    upright = np.rot90(ramp(16, 24), -1)
    np.testing.assert_array_equal(FileReader((str(tmp_path / "a.png"),)).native(0), upright)
    squared = resize_square(upright, size=12)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", size=12), squared)


@pytest.mark.parametrize(("depth", "top"), [(16, 65535), (12, 4095)])
def test_16_bit_radiographs_are_not_read_inverted(tmp_path, depth, top):
    values = np.linspace(0, top, 64).astype(np.uint16).reshape(8, 8)
    for photometric in (0, 1):  # white is zero, black is zero
        image = Image.fromarray(values)
        image.save(tmp_path / f"{photometric}.tif", tiffinfo={262: photometric})
    white, black = (read_image(tmp_path / f"{kind}.tif", depth=depth) for kind in (0, 1))
    np.testing.assert_array_equal(white, 255 - black)
    assert black[0, 0, 0] == 0 and black[-1, -1, 0] == 255


def test_16_bit_is_scaled_by_its_range_and_its_transparent_level_put_on_white(tmp_path):
    values = np.array([[0, 257 * 100], [257 * 101 - 1, 65535]], np.uint16)
    for expected, options in (
        ([0, 100, 101, 255], {}),
        ([255, 100, 101, 255], {"transparency": 0}),
    ):
        Image.fromarray(values).save(tmp_path / "a.png", **options)
        assert read_image(tmp_path / "a.png")[..., 0].ravel().tolist() == expected


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 90, (90, 90, 90)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("LA", (10, 255), (10, 10, 10)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ],
)
def test_to_rgb_converts_every_mode(mode, colour, expected):
    assert to_rgb(Image.new(mode, (2, 2), colour)).getpixel((0, 0)) == expected


def test_read_image_puts_a_palette_on_white_and_reads_the_ink_of_a_cmyk_jpeg(tmp_path):
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.paste(0, (0, 0, 8, 4))
    palette.save(tmp_path / "a.png", transparency=0)
    assert read_image(tmp_path / "a.png")[[0, 7], 0].tolist() == [[255, 255, 255], [10, 20, 30]]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red = read_image(tmp_path / "a.jpg", size=8)
    assert np.abs(red.astype(int) - [255, 0, 0]).max() <= 4  # JPEG rounds; inverted ink is cyan


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_read_image_takes_the_first_frame_of_an_animation(tmp_path, suffix):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=[second], lossless=True)
    assert read_image(path, size=8)[4, 4].tolist() == [255, 0, 0]


def test_pixels_of_unknown_unit_are_refused(tmp_path):
    refuses("expected 8 or 16 bit integers, got floats", to_rgb, Image.new("F", (2, 2), 0.5))
    refuses(r"expected 0..65535, got 70000..70000", to_rgb, Image.new("I", (2, 2), 70000))
    for name, top in (("a", 4000), ("b", 70_000)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((9, 9), top, np.int32)).save(tmp_path / name / "1.tif")
    note = "1 of 1 images have files of more than 8 bits, highest value 4,000: read as 12 bit"
    assert survey([str(tmp_path / "a" / "1.tif")])[:2] == (12, note)
    refuses(r"pixels: expected 0..65535", pack, open_dataset(tmp_path), 16, progress=False)


def truncated() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(ramp(100, 100)).save(stream, "JPEG")
    return stream.getvalue()[:-400]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (truncated(), r"a.png: damaged: premature end of jpeg file$"),
        (b"not an image", r"a.png: cannot be decoded \(cannot identify image file\)$"),
        (b"", r"a.png: cannot be decoded \(the file is empty\)$"),
        (bytes(128) + b"DICM" + bytes(9), r"a.png: a DICOM file, by its content; .* to PNG$"),
        (None, r"a.png: no such file"),
    ],
)
def test_read_image_refuses_in_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    for size in (16, None):
        with pytest.raises(InputError, match=message) as caught:
            read_image(tmp_path / "a.png", size=size)
        assert "\n" not in str(caught.value)


def test_read_image_refuses_a_bomb_and_takes_large_images_without_a_warning(tmp_path, monkeypatch):
    for name, side in (("a", 20), ("b", 12)):
        Image.new("1", (side, side)).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refuses(r"a.png: expected at most 179 million pixels", read_image, tmp_path / "a.png")
    assert read_image(tmp_path / "b.png").max() == 0  # Pillow alone would warn


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "bmp", "gif"])
def test_a_small_file_that_declares_a_huge_image_costs_no_memory(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.new("L", (257, 257)).save(path)
    content, side = path.read_bytes(), (257).to_bytes(2, "big")
    huge = (60_001).to_bytes(2, "big")
    sides = (side, huge) if ending in ("png", "jpg") else (side[::-1], huge[::-1])
    assert content.count(sides[0]) >= 2
    path.write_bytes(content.replace(*sides))
    refuses("at most 179 million pixels|cannot be decoded|damaged", read_image, path)
    assert survey([str(path)]) == (16, "", "")  # as where none is of 16 bits


# Bit depth: of a set, from its highest value.


def write_grey(folder, tops, *, ending="png"):
    paths = []
    for number, top in enumerate(tops):
        values = np.linspace(0, top, 4096).round().astype(np.uint16).reshape(64, 64)
        paths.append(str(folder / f"{number}.{ending}"))
        Image.fromarray(values).save(paths[-1])
    return tuple(paths)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize(
    ("tops", "bits"),
    [((255,), 8), ((700, 1023), 10), ((90, 4095), 12), ((300, 16000), 14), ((9, 65535), 16)],
)
def test_the_deepest_image_of_a_set_gives_its_depth(tmp_path, capsys, tops, bits, ending):
    paths = write_grey(tmp_path, tops, ending=ending)
    assert survey(paths)[0] == bits
    grey = [FileReader(paths).native(row)[..., 0] for row in range(len(tops))]
    for top, own in zip(tops, grey, strict=True):
        assert own.max() == round(top * 255 / (2**bits - 1))
    assert len(np.unique(grey[-1])) > 200
    assert capsys.readouterr().err.count(f"read as {bits} bit") == 1
    assert FileReader(paths, depth=16).native(0).max() == round(tops[0] / 257)


def test_depth_is_kept_by_the_pack_and_a_part_of_its_key(tmp_path, capsys):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_grey(tmp_path / name, (4000, 900))
    Image.fromarray(ramp()).save(tmp_path / "a" / "8bit.png")
    packed = pack(open_dataset(tmp_path), 16, progress=False)
    note = "4 of 5 images have files of more than 8 bits, highest value 4,000: read as 12 bit"
    note += "; the others have 8"
    assert packed.dataset.notes == (note,)
    assert packed.images[-2].max() > 230 and packed.dataset.reader.depth == 12
    again = pack(open_dataset(tmp_path), 16, progress=True)
    assert again.path == packed.path and again.dataset.notes == (note,)
    other = pack(open_dataset(tmp_path, bit_depth=14), 16, progress=True)
    assert other.path != packed.path and other.images[-2].max() < 70
    assert "read as 14 bit; the others have 8; bit_depth=" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"expected 0..1023, got 0..4000; .* another bit_depth"):
        pack(open_dataset(tmp_path, bit_depth=10), 16, progress=False)
    refuses(r"^bit_depth: expected one of .*, got 11", open_dataset, tmp_path, bit_depth=11)


# JPEGs that are damaged in the middle.


def jpeg(**options) -> bytes:
    rng, stream = np.random.default_rng(0), io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    image = coarse.resize((200, 150), Image.Resampling.BICUBIC)
    image.save(stream, "JPEG", quality=75, **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 5}])
@pytest.mark.parametrize("damage", ["zeros", "noise", "cut", "twice", "moved"])
def test_a_jpeg_damaged_in_the_middle_is_refused(tmp_path, damage, options):
    whole, refused = jpeg(**options), 0
    rng = np.random.default_rng(1)
    places = rng.integers(1000, len(whole) - 900, 20)
    for at in places:
        new = {
            "zeros": bytes(512),
            "noise": rng.bytes(64),
            "cut": b"",
            "twice": whole[at : at + 300] * 2,
            "moved": whole[at + 100 : at + 400],
        }[damage]
        length = {"twice": 300, "moved": 300, "cut": 100}.get(damage, len(new))
        (tmp_path / "a.jpg").write_bytes(whole[:at] + new + whole[at + length :])
        try:
            read_image(tmp_path / "a.jpg", size=16)
        except InputError as error:
            refused += "damaged" in str(error) or "cannot be decoded" in str(error)
    assert refused >= 15  # of 20: damage may leave the data in step


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 5}]
    + [{"subsampling": kind} for kind in (0, 1, 2)],
)
def test_whole_jpegs_of_every_kind_are_read_as_pillow_does(tmp_path, options):
    content = jpeg(**options)
    for ending in (b"", b"\xff\xd9 more", bytes(3)):
        (tmp_path / "a.jpg").write_bytes(content + ending)
        expected = np.asarray(Image.open(io.BytesIO(content)))
        np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)


@pytest.mark.real
def test_no_real_jpeg_is_called_damaged(shared):
    files = sorted((shared / "data" / "ham10000" / "images").iterdir())[::40]
    for file in files:
        with Image.open(file) as opened:
            np.testing.assert_array_equal(read_image(file), np.asarray(opened))


def test_16_bits_in_colour_are_refused(tmp_path):
    chunks = b"\x89PNG\r\n\x1a\n"
    pixels = zlib.compress(bytes(8 * 49))
    head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    for kind, content in ((b"IHDR", head), (b"IDAT", pixels), (b"IEND", b"")):
        check = zlib.crc32(kind + content)
        chunks += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
    (tmp_path / "a.png").write_bytes(chunks)
    refuses(r"a.png: 16 bits per channel are read in grey alone", read_image, tmp_path / "a.png")
    for ending in ("tif", "bmp"):  # a line has 162 bytes
        Image.new("RGB", (54, 9)).save(tmp_path / f"a.{ending}")
        assert read_image(tmp_path / f"a.{ending}").shape == (9, 54, 3)


def test_transparent_pixels_and_further_pages_are_counted(tmp_path, capsys):
    for name, alpha in (("a", 0), ("b", 255)):
        (tmp_path / name).mkdir()
        Image.new("RGBA", (9, 9), (9, 9, 9, alpha)).save(tmp_path / name / "1.png")
        page = Image.new("RGB", (9, 9))
        page.save(tmp_path / name / "2.tif", save_all=True, append_images=[page])
    note = "1 of 4 images have transparent pixels, put on white; 2 of 4 images have several pages"
    for _ in range(2):  # also of a pack that is opened again
        packed = pack(open_dataset(tmp_path), 16, progress=True)
        assert packed.dataset.notes == (f"{note} or frames, the first is used",)
    assert capsys.readouterr().err.count(note) == 1
