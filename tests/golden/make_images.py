#!/usr/bin/env python3
"""Writes tests/golden/images: test images, and the results of Pillow's decoders and resize and of CLIP's
image processor.

Run with Debian's python3 (python3-pil, python3-numpy) and cjpeg (libjpeg-turbo-progs) in the PATH:

    /usr/bin/python3 tests/golden/make_images.py

Tables are tab-separated text; the first line of each records the versions that made it.
  decode.tsv     file, width, height, SHA-256 of Image.open(file).convert("RGB")'s bytes
  resize.tsv     kind, seed, width, height, new width, new height, filter, SHA-256 of the result
  processor.tsv  kind, seed, width, height, config's JSON, side, SHA-256 of the result
`synthetic` makes the inputs of the last two tables; tests/vision/test_images.h has the same function in C++.
The decoders must reject the bad_* files; the test says with which error.
"""

import hashlib
import io
import json
import math
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, features

OUT = Path(__file__).parent / "images"
VERSIONS = (
    f"# Pillow {PIL.__version__}, libjpeg-turbo {features.version_feature('libjpeg_turbo')}, "
    f"libwebp {features.version_module('webp')}, zlib {features.version_codec('zlib')}, "
    f"numpy {np.__version__}, Python {sys.version.split()[0]}"
)


def sha(data):
    return hashlib.sha256(data).hexdigest()


# --- synthetic images -----------------------------------------------------------------------------


def mix(seed, index):
    """SplitMix64's output function at seed * 2^32 + index; index is an array of uint64."""
    with np.errstate(over="ignore"):
        z = (np.uint64(seed) << np.uint64(32)) + index + np.uint64(1)
        z = z * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (z ^ (z >> np.uint64(31))).astype(np.uint8)


def synthetic(kind, seed, width, height):
    y, x, c = np.meshgrid(
        np.arange(height, dtype=np.uint64),
        np.arange(width, dtype=np.uint64),
        np.arange(3, dtype=np.uint64),
        indexing="ij",
    )
    if kind == "noise":
        return mix(seed, (y * np.uint64(width) + x) * np.uint64(3) + c)
    if kind == "blocks":
        cell = np.uint64(1 + seed % 23)
        return mix(seed, ((y // cell) * np.uint64(4096) + x // cell) * np.uint64(3) + c)
    assert kind == "gradient"
    r = x * np.uint64(255) // np.uint64(max(width - 1, 1))
    g = y * np.uint64(255) // np.uint64(max(height - 1, 1))
    b = (x + y + np.uint64(seed)) % np.uint64(256)
    return np.where(c == 0, r, np.where(c == 1, g, b)).astype(np.uint8)


KINDS = ("noise", "gradient", "blocks")


# --- resize ---------------------------------------------------------------------------------------


def make_resize():
    rng = random.Random(20240601)
    lines = [VERSIONS]
    for i in range(250):
        kind = KINDS[i % 3]
        size = [rng.randint(1, 700) for _ in range(4)]
        if i % 10 == 7:  # thin, tiny and unchanged sizes
            size[rng.randrange(4)] = rng.choice((1, 2, 3))
        if i % 25 == 9:
            size[2] = size[0]
        if i % 25 == 19:
            size[3] = size[1]
        resample = Image.BICUBIC if i < 200 else Image.BILINEAR
        w, h, ow, oh = size
        image = Image.fromarray(synthetic(kind, i, w, h), "RGB")
        out = image.resize((ow, oh), resample=resample)
        lines.append("\t".join(map(str, (kind, i, w, h, ow, oh, int(resample), sha(out.tobytes())))))
    (OUT / "resize.tsv").write_text("\n".join(lines) + "\n")


# --- processor ------------------------------------------------------------------------------------


def resized_shape(width, height, edge):
    """Returns the size with the shorter side `edge` and the longer int(edge * long / short), in float64."""
    short, long = min(width, height), max(width, height)
    other = int(edge * long / short)
    return (edge, other) if width <= height else (other, edge)


def center_crop(pixels, side):
    """Crops side x side pixels with top = (height - side) // 2. Pixels outside the image are zero."""
    height, width = pixels.shape[:2]
    canvas = np.zeros((max(height, side) , max(width, side), 3), np.uint8)
    pad_y, pad_x = math.ceil((canvas.shape[0] - height) / 2), math.ceil((canvas.shape[1] - width) / 2)
    canvas[pad_y : pad_y + height, pad_x : pad_x + width] = pixels
    top = (height - side) // 2 + pad_y
    left = (width - side) // 2 + pad_x
    return canvas[top : top + side, left : left + side]


def pad_square(image, color):
    width, height = image.size
    side = max(width, height)
    out = Image.new("RGB", (side, side), color)
    out.paste(image, ((side - width) // 2, (side - height) // 2))
    return out


def process(image, c):
    if c.get("do_pad"):
        image = pad_square(image, tuple(int(m * 255) for m in c["image_mean"]))
    if c.get("do_resize", True):
        size = c["size"]
        if isinstance(size, int):
            size = {"shortest_edge": size}
        if "shortest_edge" in size:
            shape = resized_shape(*image.size, size["shortest_edge"])
        else:
            shape = (size["width"], size["height"])
        image = image.resize(shape, resample=c.get("resample", 3))
    pixels = np.asarray(image)
    if c.get("do_center_crop", True):
        crop = c["crop_size"]
        pixels = center_crop(pixels, crop if isinstance(crop, int) else crop["height"])
    assert pixels.shape[0] == pixels.shape[1]
    return np.ascontiguousarray(pixels)


MEAN = [0.48145466, 0.4578275, 0.40821073]
CONFIGS = [
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 112},
     "crop_size": {"height": 112, "width": 112}},
    {"size": 97, "crop_size": 97},
    {"image_processor_type": "LlavaImageProcessor", "do_pad": True, "image_mean": MEAN,
     "size": {"shortest_edge": 112}, "crop_size": {"height": 112, "width": 112}},
    {"do_pad": True, "image_mean": [0.2, 0.4, 123 / 255], "size": 63, "crop_size": 63},
    {"size": {"height": 84, "width": 84}, "do_center_crop": False},
    {"size": {"shortest_edge": 60}, "crop_size": 91},  # zero padding, odd
    {"size": {"shortest_edge": 61}, "crop_size": 90},
    {"do_resize": False, "crop_size": 64},
    {"do_resize": False, "crop_size": 65},
    {"size": 70, "crop_size": 56, "resample": 2},
]
SHAPES = [(1, 1), (1, 7), (112, 112), (113, 111), (640, 480), (333, 500), (500, 333), (99, 64),
          (64, 99), (300, 3), (3, 301), (65, 66), (337, 336)]


def make_processor():
    lines = [VERSIONS]
    seed = 1000
    for config in CONFIGS:
        for width, height in SHAPES:
            kind = KINDS[seed % 3]
            out = process(Image.fromarray(synthetic(kind, seed, width, height), "RGB"), config)
            lines.append("\t".join(map(str, (kind, seed, width, height, json.dumps(config),
                                             out.shape[0], sha(out.tobytes())))))
            seed += 1
    (OUT / "processor.tsv").write_text("\n".join(lines) + "\n")


# --- files ----------------------------------------------------------------------------------------


def photo(seed, width, height):
    """Returns smooth shapes with some noise, so that a lossy coder loses something."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    rng = np.random.RandomState(seed)
    out = np.zeros((height, width, 3))
    for c in range(3):
        a, b, p = rng.uniform(0.02, 0.3, 3)
        out[..., c] = 127 + 90 * np.sin(a * x + 3 * c) * np.cos(b * y + p) + rng.normal(0, 9, (height, width))
    out[height // 3 : height // 2, width // 4 : width // 2] = rng.randint(0, 255, 3)
    return np.clip(out, 0, 255).astype(np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, color, rows, interlaced=False, extra=b""):
    """Returns a PNG of packed rows. `rows(x0, y0, dx, dy)` returns the bytes of each row of a subimage."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2)] if interlaced else [(0, 0, 1, 1)]
    raw = b""
    for x0, y0, dx, dy in passes:
        if x0 < width and y0 < height:
            raw += b"".join(b"\0" + row for row in rows(x0, y0, dx, dy))
    return (b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))
            + extra + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def packed_png(values, depth, color, interlaced=False, extra=b""):
    """Packs samples below 2**depth. values: [height, width, channels]."""
    height, width, _ = values.shape

    def rows(x0, y0, dx, dy):
        for row in values[y0::dy, x0::dx]:
            bits = (row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1
            yield np.packbits(bits.astype(np.uint8).reshape(-1)).tobytes()

    return png(width, height, depth, color, rows, interlaced, extra)


def cjpeg(pixels, *options, grey=False):
    header = b"P%d %d %d 255\n" % (5 if grey else 6, pixels.shape[1], pixels.shape[0])
    return subprocess.run(("cjpeg",) + options, input=header + pixels.tobytes(), check=True,
                          stdout=subprocess.PIPE).stdout


def jpegs():
    rgb = Image.fromarray(photo(1, 61, 45))
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        yield f"rgb_{name}.jpg", saved(rgb, "JPEG", subsampling=subsampling, quality=85)
        yield f"progressive_{name}.jpg", saved(rgb, "JPEG", subsampling=subsampling, progressive=True)
    yield "grey.jpg", saved(rgb.convert("L"), "JPEG", quality=70)
    yield "grey_progressive.jpg", saved(rgb.convert("L"), "JPEG", progressive=True)
    for width, height in ((1, 1), (7, 5), (16, 16), (17, 33), (3, 64)):
        yield f"odd_{width}x{height}.jpg", saved(Image.fromarray(photo(2, width, height)), "JPEG")
    yield "low_quality.jpg", saved(rgb, "JPEG", quality=3)
    yield "exif_orientation.jpg", saved(rgb, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"
                                        b"\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    pixels = photo(3, 50, 39)
    yield "rgb_440.jpg", cjpeg(pixels, "-sample", "1x2")
    yield "rgb_411.jpg", cjpeg(pixels, "-sample", "4x1")
    yield "rgb_410.jpg", cjpeg(pixels, "-sample", "4x2")
    yield "restart.jpg", cjpeg(pixels, "-restart", "1B")
    yield "arithmetic.jpg", cjpeg(pixels, "-arithmetic")
    yield "direct_rgb.jpg", cjpeg(pixels, "-rgb")


def pngs():
    rng = np.random.RandomState(5)
    rgb = photo(4, 37, 29)
    alpha = rng.randint(0, 256, (29, 37, 1), np.uint8)
    rgba = np.concatenate([rgb, alpha], 2)
    grey = rgb[..., :1]
    palette = rng.randint(0, 256, 768, np.uint8).tobytes()
    plte = chunk(b"PLTE", palette)
    for interlaced in (False, True):
        tail = "_interlaced.png" if interlaced else ".png"
        yield "rgb" + tail, packed_png(rgb, 8, 2, interlaced)
        yield "rgba" + tail, packed_png(rgba, 8, 6, interlaced)
        yield "la" + tail, packed_png(np.concatenate([grey, alpha], 2), 8, 4, interlaced)
        for depth in (1, 2, 4, 8):
            yield f"grey{depth}" + tail, packed_png(grey >> (8 - depth), depth, 0, interlaced)
            few = chunk(b"PLTE", palette[: 3 << depth])
            yield f"palette{depth}" + tail, packed_png(grey >> (8 - depth), depth, 3, interlaced, few)
    yield "rgb_trns.png", packed_png(rgb, 8, 2, extra=chunk(b"tRNS", struct.pack(">3H", *rgb[3, 4])))
    yield "grey_trns.png", packed_png(grey, 8, 0, extra=chunk(b"tRNS", struct.pack(">H", grey[3, 4, 0])))
    yield "palette_trns.png", packed_png(grey, 8, 3, extra=plte + chunk(b"tRNS", bytes(range(200))))
    yield "palette_short.png", packed_png(grey >> 4, 8, 3, extra=chunk(b"PLTE", palette[:24]))
    yield "gamma.png", packed_png(rgb, 8, 2, extra=chunk(b"gAMA", struct.pack(">I", 100000))
                                  + chunk(b"tEXt", b"Comment\0hello"))
    yield "interlaced_1x1.png", packed_png(rgb[:1, :1], 8, 2, True)
    yield "interlaced_3x2.png", packed_png(rgb[:2, :3], 8, 2, True)
    yield "filtered.png", saved(Image.fromarray(photo(6, 64, 48)), "PNG")  # the encoder chooses a filter for each row


def webps():
    rgb = Image.fromarray(photo(7, 59, 43))
    rgba = Image.fromarray(np.dstack([photo(8, 59, 43), photo(9, 59, 43)[..., 0]]))
    yield "lossy.webp", saved(rgb, "WEBP", quality=80)
    yield "lossless.webp", saved(rgb.quantize(24).convert("RGB"), "WEBP", lossless=True)
    yield "lossy_alpha.webp", saved(rgba, "WEBP", quality=60)
    small = rgba.crop((0, 0, 21, 18))
    yield "lossless_alpha.webp", saved(small, "WEBP", lossless=True, exact=True)
    yield "lossy_exif.webp", saved(rgb, "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")
    yield "odd_1x1.webp", saved(rgb.crop((5, 5, 6, 6)), "WEBP")
    yield "odd_17x3.webp", saved(rgb.crop((5, 5, 22, 8)), "WEBP")


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def patched_jpeg_size(data, width, height):
    at = next(i for i in range(len(data)) if data[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def scans_of(data):
    """Splits a progressive JPEG into [header, scan, scan, ...]; a scan includes its tables."""
    parts, start, at = [], 0, 2
    while data[at + 1] != 0xD9:
        kind, size = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        if kind in (0xC4, 0xDA) and not parts:
            parts, start = [data[:at]], at
        at += 2 + size
        if kind == 0xDA:
            while data[at] != 0xFF or data[at + 1] == 0:
                at += 1
            parts.append(data[start:at])
            start = at
    return parts


def many_scans(pixels):
    """Returns a valid progressive JPEG of 128 scans, joined from two because cjpeg writes at most 100."""
    script = OUT / "scans.tmp"

    def encode(lines):
        script.write_text("".join(line + ";\n" for line in ["0: 0-0, 0, 0", *lines]))
        data = cjpeg(pixels, "-scans", str(script), grey=True)
        script.unlink()
        return scans_of(data)

    head, *first = encode([f"0: {k}-{k}, 0, 2" for k in range(1, 64)]
                          + ["0: 1-63, 2, 1", "0: 1-63, 1, 0"])
    _, *second = encode(["0: 1-63, 0, 2"] + [f"0: {k}-{k}, 2, 1" for k in range(1, 64)]
                        + ["0: 1-63, 1, 0"])
    data = head + b"".join(first[:64] + second[2:]) + b"\xff\xd9"
    image = Image.open(io.BytesIO(data))  # Pillow has no such limit and reads it
    plain = Image.open(io.BytesIO(cjpeg(pixels, grey=True)))
    assert image.tobytes() == plain.tobytes()
    return data


def bad_files():
    rgb = photo(10, 24, 17)
    image = Image.fromarray(rgb)
    jpeg = saved(image, "JPEG")
    yield "bad_cmyk.jpg", saved(image.convert("CMYK"), "JPEG")
    yield "bad_huge.jpg", patched_jpeg_size(jpeg, 65500, 65500)
    yield "bad_huge_beyond_libjpeg.jpg", patched_jpeg_size(jpeg, 65535, 65535)
    yield "bad_zero.jpg", patched_jpeg_size(jpeg, 24, 0)
    yield "bad_zero_width.jpg", patched_jpeg_size(jpeg, 0, 17)
    yield "bad_scans.jpg", many_scans(rgb[:9, :9, 0].copy())

    def blank(width, height):
        return lambda *_: [b"\0" * width * 3] * height
    yield "bad_huge.png", png(50000, 50000, 8, 2, blank(3, 3))
    yield "bad_zero.png", png(0, 5, 8, 2, blank(3, 3))
    yield "bad_16bit.png", packed_png(rgb.astype(np.uint16) * 257, 16, 2)
    yield "bad_16bit_grey.png", packed_png(rgb[..., :1].astype(np.uint16) * 257, 16, 0)
    yield "bad_no_palette.png", packed_png(rgb[..., :1], 8, 3)
    yield "bad_too_few_rows.png", png(24, 17, 8, 2, blank(24, 11))
    good = packed_png(rgb, 8, 2)
    yield "bad_crc.png", good[:-20] + bytes([good[-20] ^ 1]) + good[-19:]

    yield "bad_animated.webp", saved(image, "WEBP", save_all=True,
                                     append_images=[image.transpose(Image.FLIP_TOP_BOTTOM)])
    lossless = bytearray(saved(image.quantize(4).convert("RGB"), "WEBP", lossless=True))
    at = lossless.index(b"VP8L") + 9  # 14 bits of width - 1, 14 bits of height - 1
    lossless[at : at + 4] = struct.pack("<I", 0x0FFFFFFF)
    yield "bad_huge.webp", bytes(lossless)
    lossy = bytearray(saved(image, "WEBP"))
    at = lossy.index(b"\x9d\x01\x2a") + 3
    lossy[at : at + 4] = struct.pack("<HH", 0, 17)
    yield "bad_zero.webp", bytes(lossy)


def make_files():
    lines = [VERSIONS]
    for name, data in [*jpegs(), *pngs(), *webps()]:
        (OUT / name).write_bytes(data)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        lines.append("\t".join(map(str, (name, *image.size, sha(image.tobytes())))))
    (OUT / "decode.tsv").write_text("\n".join(lines) + "\n")
    for name, data in bad_files():
        (OUT / name).write_bytes(data)


def main():
    OUT.mkdir(exist_ok=True)
    make_resize()
    make_processor()
    make_files()


if __name__ == "__main__":
    main()
