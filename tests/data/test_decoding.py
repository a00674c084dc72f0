import io
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fopro_lab.data.decoding import (
    FileReader,
    decoder_version,
    read_image,
    read_native,
    resize_square,
    to_rgb,
    with_rules,
)
from fopro_lab.errors import InputError


def ramp(height: int = 20, width: int = 30) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8, y * 12, (x * y) % 256], axis=2).astype(np.uint8)


def write_photograph(path, *, width: int, height: int, **options: object) -> np.ndarray:
    """Write a smooth image with some texture, as JPEG, and return what PIL reads."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    noisy = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(path, "JPEG", quality=90, **options)
    with Image.open(path) as opened:
        return np.asarray(opened)


@pytest.mark.parametrize("interpolation", ["box", "bilinear", "bicubic", "lanczos"])
def test_read_image_equals_pil(tmp_path, interpolation):
    path = tmp_path / "a.jpg"
    Image.fromarray(ramp()).save(path, quality=80)
    resampling = Image.Resampling[interpolation.upper()]
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB").resize((16, 16), resampling))
    read = read_image(path, size=16, interpolation=interpolation)
    np.testing.assert_array_equal(read, expected)
    pixels = np.asarray(Image.open(path))
    squared = resize_square(pixels, size=16, interpolation=interpolation)
    np.testing.assert_array_equal(squared, expected)


def test_read_image_draft_is_near_to_exact(tmp_path):
    # 257 x 321 at 32 px: libjpeg shrinks to 1/4, the last pixel of each side is a quarter one.
    # The mean difference is 0.25 of 255. Stretched by that part of a pixel it would be 3.4, and
    # shrunk to 1/8, which leaves too few pixels for the resize, 0.70.
    write_photograph(tmp_path / "a.jpg", width=257, height=321)
    exact = read_image(tmp_path / "a.jpg", size=32).astype(int)
    draft = read_image(tmp_path / "a.jpg", size=32, decoder="draft").astype(int)
    assert 0 < np.abs(draft - exact).mean() < 0.3


@pytest.mark.parametrize(
    ("side", "size", "shrunk"), [(64, 32, 1), (127, 32, 1), (128, 32, 2), (256, 16, 8)]
)
def test_read_image_draft_keeps_twice_the_side(tmp_path, side, size, shrunk):
    write_photograph(tmp_path / "a.jpg", width=side, height=side)
    with Image.open(tmp_path / "a.jpg") as opened:
        opened.draft(None, (side // shrunk, side // shrunk))
        assert opened.size == (side // shrunk, side // shrunk)
        expected = np.asarray(opened.resize((size, size), Image.Resampling.BILINEAR))
    read = read_image(tmp_path / "a.jpg", size=size, decoder="draft")
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_image_draft_turns_by_exif(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_photograph(tmp_path / "a.jpg", width=161, height=129, exif=exif)
    exact = read_image(tmp_path / "a.jpg", size=16).astype(int)
    draft = read_image(tmp_path / "a.jpg", size=16, decoder="draft").astype(int)
    assert 0 < np.abs(draft - exact).mean() < 0.7  # it is 0.48; not boxed 6.5, not turned 60


def test_read_image_draft_leaves_other_formats_alone(tmp_path):
    Image.fromarray(ramp(200, 200)).save(tmp_path / "a.png")
    exact, draft = (
        read_image(tmp_path / "a.png", size=16, decoder=decoder) for decoder in ("exact", "draft")
    )
    np.testing.assert_array_equal(exact, draft)


def test_read_image_at_native_size_keeps_every_pixel(tmp_path):
    square = ramp(20, 20)
    Image.fromarray(square).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", size=20), square)


def test_read_image_turns_by_exif(tmp_path):
    square = ramp(16, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    Image.fromarray(square).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", size=16), np.rot90(square, -1))


def test_read_image_scales_16_bit_by_its_range(tmp_path):
    values = np.array([[0, 257 * 100], [257 * 101 - 1, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    grey = read_image(tmp_path / "a.png", size=2)[..., 0]
    assert grey.tolist() == [[0, 100], [101, 255]]


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


def test_to_rgb_looks_up_the_palette():
    palette = Image.new("P", (1, 1), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert to_rgb(palette).getpixel((0, 0)) == (10, 20, 30)


def test_read_image_looks_through_a_transparent_palette(tmp_path):
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.paste(0, (0, 0, 8, 4))
    palette.save(tmp_path / "a.png", transparency=0)
    read = read_image(tmp_path / "a.png", size=8)
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[7, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_read_image_takes_the_first_of_an_animation(tmp_path, ending):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = tmp_path / f"a.{ending}"
    first.save(path, save_all=True, append_images=[second], lossless=True)
    assert read_image(path, size=8)[4, 4].tolist() == [255, 0, 0]


def test_read_image_goes_by_the_content_not_the_ending(tmp_path):
    Image.fromarray(ramp(16, 16)).save(tmp_path / "a.jpg", "PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg", size=16), ramp(16, 16))


@pytest.mark.parametrize("decoder", ["exact", "draft"])
def test_read_image_takes_20000_pixels_in_a_row(tmp_path, decoder):
    Image.new("RGB", (20_000, 40), (10, 200, 30)).save(tmp_path / "a.jpg", quality=95)
    wide = read_image(tmp_path / "a.jpg", size=16, decoder=decoder)
    assert np.abs(wide.astype(int) - [10, 200, 30]).max() <= 3  # JPEG rounds


def test_read_image_takes_100_million_pixels_without_a_warning(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "a.png")  # PIL alone warns from 89 on
    assert read_image(tmp_path / "a.png", size=8).max() == 0


def test_to_rgb_refuses_floats():
    with pytest.raises(InputError, match="expected 8 or 16 bit integers, got floats"):
        to_rgb(Image.new("F", (2, 2), 0.5))


def test_to_rgb_refuses_integers_beyond_16_bit():
    with pytest.raises(InputError, match=r"expected 0..65535, got 70000..70000"):
        to_rgb(Image.new("I", (2, 2), 70000))


def test_read_image_reads_a_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red = read_image(tmp_path / "a.jpg", size=8)
    assert np.abs(red.astype(int) - [255, 0, 0]).max() <= 4  # JPEG rounds; inverted ink is cyan


def test_read_image_refuses_a_truncated_jpeg(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(ramp(100, 100)).save(stream, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(stream.getvalue()[:-400])
    with pytest.raises(InputError, match=r"cut.jpg: cannot be decoded \(.*truncated"):
        read_image(tmp_path / "cut.jpg", size=16)


@pytest.mark.parametrize("content", [b"not an image", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_read_image_refuses_what_is_no_image(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"^.*a.png: cannot be decoded \(cannot identify"):
        read_image(tmp_path / "a.png", size=16)


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    told = r"^.*a.png: cannot be decoded \(the file is empty\)$"
    with pytest.raises(InputError, match=told):
        read_image(tmp_path / "a.png", size=16)
    with pytest.raises(InputError, match=told):
        read_native(tmp_path / "a.png")


def test_read_native_keeps_the_size_and_obeys_the_camera(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright
    pixels = ramp(40, 64)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = np.rot90(pixels, k=-1)
    np.testing.assert_array_equal(read_native(tmp_path / "a.png"), upright)
    np.testing.assert_array_equal(FileReader((str(tmp_path / "a.png"),)).native(0), upright)


def test_read_image_refuses_a_decompression_bomb(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b""))
    with pytest.raises(InputError, match=r"bomb.png: expected at most 179 million pixels"):
        read_image(tmp_path / "bomb.png", size=16)


def test_read_image_refuses_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone.png: no such file"):
        read_image(tmp_path / "gone.png", size=16)


def test_file_reader_reads_the_rows_it_took(tmp_path):
    for value in (1, 2, 3):
        Image.new("L", (8, 8), value).save(tmp_path / f"{value}.png")
    reader = FileReader(tuple(str(tmp_path / f"{value}.png") for value in (1, 2, 3)))
    assert reader.take(np.array([2, 0]))(0, 8).max() == 3


def test_with_rules_reaches_each_row_and_each_part(tmp_path):
    write_photograph(tmp_path / "a.jpg", width=256, height=256)
    path = str(tmp_path / "a.jpg")
    reader = with_rules(FileReader((path, path)), decoder="draft", interpolation="box")
    expected = read_image(path, size=16, decoder="draft", interpolation="box")
    for part in (reader, reader.take(np.array([1])), pickle.loads(pickle.dumps(reader))):
        np.testing.assert_array_equal(part(0, 16), expected)
    assert (expected != read_image(path, size=16)).any()


def test_with_rules_leaves_a_reader_that_has_none():
    assert with_rules(len, decoder="draft", interpolation="box") is len


def test_resize_square_is_the_resize_of_read_image(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        resize_square(ramp(), size=12), read_image(tmp_path / "a.png", size=12)
    )


def test_decoder_version_names_pillow_and_the_rules():
    assert f" exact bilinear pillow {Image.__version__}" in decoder_version()
    assert len({decoder_version(d, i) for d in ("exact", "draft") for i in ("box", "lanczos")}) == 4


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (("fast", "box"), r"^decoder: expected one of 'exact', 'draft', got 'fast'$"),
        (
            ("exact", "area"),
            r"^interpolation: expected one of 'box', 'bilinear', 'bicubic', 'lanczos', got 'area'$",
        ),
    ],
)
def test_decoder_version_refuses_unknown_rules(rules, message):
    with pytest.raises(InputError, match=message):
        decoder_version(*rules)
