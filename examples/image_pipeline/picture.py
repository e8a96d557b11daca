# SPDX-License-Identifier: Apache-2.0
"""Pictures: PNG files with 8 bits a sample, and what lies between them, in pure Python.

``Picture.packed`` is how one stage hands a picture to the next: three 32-bit numbers (width,
height, samples a pixel), then the samples, row by row.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEAD = struct.Struct("<III")
# Of PNG's colour types: grey, colours, grey with opacity, colours with opacity.
SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}
COLOUR_TYPES = {samples: kind for kind, samples in SAMPLES.items()}
LARGEST = 1 << 26  # samples
DEPTH = 8
# The filters of rows.
NONE, LEFT, ABOVE, MEAN = range(4)


class Picture(NamedTuple):
    """A picture; ``rows`` are bytes of ``width * samples``."""

    width: int
    height: int
    samples: int
    rows: list[bytes]

    @classmethod
    def unpacked(cls, data: bytes) -> Picture:
        """Return what ``packed`` made."""
        width, height, samples = HEAD.unpack_from(data)
        stride = width * samples
        if len(data) != HEAD.size + stride * height:
            raise ValueError("the samples do not fill the picture")
        starts = range(HEAD.size, len(data), stride)
        return cls(width, height, samples, [data[start : start + stride] for start in starts])

    def packed(self) -> bytes:
        """Return the picture as bytes."""
        return HEAD.pack(self.width, self.height, self.samples) + b"".join(self.rows)


def decode(data: bytes) -> Picture:
    """Return the picture of a PNG file.

    Raises:
        ValueError: it is none, or one of a kind that is not read here.
    """
    chunks = dict.fromkeys((b"IHDR", b"IDAT"), b"")
    for kind, content in _chunks(data):
        if kind in chunks:
            chunks[kind] += content
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if depth != DEPTH or colour not in SAMPLES or interlaced:
        raise ValueError("only pictures of 8 bits a sample, without palette and interlacing")
    samples = SAMPLES[colour]
    if width * height * samples > LARGEST:
        raise ValueError(f"{width} x {height} is too large")
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(chunks[b"IDAT"], height * (width * samples + 1))
    return Picture(width, height, samples, _unfiltered(raw, width * samples, samples, height))


def encode(picture: Picture) -> bytes:
    """Return a picture as a PNG file."""
    colour = COLOUR_TYPES[picture.samples]
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 8, colour, 0, 0, 0)
    raw = b"".join(b"\0" + row for row in picture.rows)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(raw, 1)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, content) for kind, content in parts)


def halve(picture: Picture) -> Picture:
    """Return a picture of half the size: each pixel is the mean of four."""
    samples, rows = picture.samples, []
    width, height = picture.width // 2, picture.height // 2
    for upper, lower in zip(picture.rows[: height * 2 : 2], picture.rows[1::2], strict=False):
        row = bytearray(width * samples)
        for sample in range(samples):
            planes = (
                line[sample + shift * samples : width * 2 * samples : samples * 2]
                for line in (upper, lower)
                for shift in (0, 1)
            )
            row[sample::samples] = bytes([sum(four) >> 2 for four in zip(*planes, strict=True)])
        rows.append(bytes(row))
    return Picture(width, height, samples, rows)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of each chunk."""
    if not data.startswith(SIGNATURE):
        raise ValueError("not a PNG file")
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        content = data[place + 8 : place + 8 + length]
        if _chunk(kind, content) != data[place : place + 12 + length]:
            raise ValueError(f"the chunk {kind!r} is damaged")
        yield kind, content
        place += 12 + length


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def _unfiltered(raw: bytes, stride: int, back: int, height: int) -> list[bytes]:
    """Undo PNG's filters; ``back`` is the distance to the sample on the left."""
    if len(raw) != height * (stride + 1):
        raise ValueError("there is not enough data for the picture")
    rows: list[bytes] = []
    above = bytes(stride)
    for start in range(0, len(raw), stride + 1):
        above = _row(raw[start], raw[start + 1 : start + 1 + stride], above, back)
        rows.append(above)
    return rows


def _row(kind: int, line: bytes, above: bytes, back: int) -> bytes:
    """Undo the filter of one row: 0 none, 1 left, 2 above, 3 mean of both, 4 Paeth."""
    if kind == NONE:
        return line
    if kind == ABOVE:
        return bytes([(x + up) & 255 for x, up in zip(line, above, strict=True)])
    row = bytearray(back) + bytearray(line)
    higher = bytes(back) + above
    for at in range(back, len(row)):
        left, up, corner = row[at - back], higher[at], higher[at - back]
        if kind == LEFT:
            guess = left
        elif kind == MEAN:
            guess = (left + up) // 2
        else:
            ahead = left + up - corner
            distances = ((abs(ahead - near), near) for near in (left, up, corner))
            guess = min(distances, key=lambda pair: pair[0])[1]
        row[at] = (row[at] + guess) & 255
    return bytes(row[back:])
