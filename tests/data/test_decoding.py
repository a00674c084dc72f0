import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fopro_lab.data.decoding import (
    FileReader,
    decoder_version,
    read_picture,
    resize_square,
    to_rgb,
)
from fopro_lab.errors import InputError


def ramp(height: int = 20, width: int = 30) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8, y * 12, (x * y) % 256], axis=2).astype(np.uint8)


def test_read_picture_equals_pil(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(ramp()).save(path, quality=80)
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(read_picture(path, size=16), expected)


def test_read_picture_at_native_size_keeps_every_pixel(tmp_path):
    square = ramp(20, 20)
    Image.fromarray(square).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", size=20), square)


def test_read_picture_turns_by_exif(tmp_path):
    square = ramp(16, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    Image.fromarray(square).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", size=16), np.rot90(square, -1))


def test_read_picture_scales_16_bit_by_its_range(tmp_path):
    values = np.array([[0, 257 * 100], [257 * 101 - 1, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    grey = read_picture(tmp_path / "a.png", size=2)[..., 0]
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


def test_to_rgb_refuses_floats():
    with pytest.raises(InputError, match="expected 8 or 16 bit integers, got floats"):
        to_rgb(Image.new("F", (2, 2), 0.5))


def test_to_rgb_refuses_integers_beyond_16_bit():
    with pytest.raises(InputError, match=r"expected 0..65535, got 70000..70000"):
        to_rgb(Image.new("I", (2, 2), 70000))


def test_read_picture_reads_a_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red = read_picture(tmp_path / "a.jpg", size=8)
    assert np.abs(red.astype(int) - [255, 0, 0]).max() <= 4  # JPEG rounds; inverted ink is cyan


def test_read_picture_refuses_a_truncated_jpeg(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(ramp(100, 100)).save(stream, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(stream.getvalue()[:-400])
    with pytest.raises(InputError, match=r"cut.jpg: cannot be decoded \(.*truncated"):
        read_picture(tmp_path / "cut.jpg", size=16)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_read_picture_refuses_what_is_no_picture(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"^.*a.png: cannot be decoded \(cannot identify"):
        read_picture(tmp_path / "a.png", size=16)


def test_read_picture_refuses_a_decompression_bomb(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b""))
    with pytest.raises(InputError, match=r"bomb.png: expected at most 179 million pixels"):
        read_picture(tmp_path / "bomb.png", size=16)


def test_read_picture_refuses_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone.png: no such file"):
        read_picture(tmp_path / "gone.png", size=16)


def test_file_reader_reads_the_rows_it_took(tmp_path):
    for value in (1, 2, 3):
        Image.new("L", (8, 8), value).save(tmp_path / f"{value}.png")
    reader = FileReader(tuple(str(tmp_path / f"{value}.png") for value in (1, 2, 3)))
    assert reader.take(np.array([2, 0]))(0, 8).max() == 3


def test_resize_square_is_the_resize_of_read_picture(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        resize_square(ramp(), size=12), read_picture(tmp_path / "a.png", size=12)
    )


def test_decoder_version_names_pillow():
    assert f"pillow {Image.__version__}" in decoder_version()
