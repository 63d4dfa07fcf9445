"""EXIF: read what a TIFF keeps of it, create it, and scale the sizes that it states."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress

from PIL import Image

from napari_cfsr.core.io.tiff import ASCII, DATE_TAKEN, TEXTS

# tags of EXIF
ORIENTATION, EXIF_IFD = 0x0112, 0x8769
WIDTHS, HEIGHTS, RESOLUTIONS = (0x0100, 0xA002), (0x0101, 0xA003), (0x011A, 0x011B)
SHORT, LONG, UTF8 = 3, 4, 129
# orientation, resolution, its unit, sizes, and what says nothing about a camera: versions, the
# colour space (see the ICC profile), the layout of components, offsets of other directories
IN_ANY_TIFF = (
    ORIENTATION, *RESOLUTIONS, 0x0128, *WIDTHS, *HEIGHTS,
    0x0213, EXIF_IFD, 0x9000, 0x9101, 0xA000, 0xA001, 0xA005,
)  # fmt: skip


def exif_facts(exif: bytes | None) -> tuple[int | None, dict[int, bytes], bool]:
    """What a TIFF keeps of EXIF, orientation and `TEXTS`, and whether there is more than that."""
    data = bytearray(exif or b"")
    orientation, texts, has_more = None, {}, False
    with suppress(struct.error, KeyError):
        start, order = _start(data)
        for tag, at in _entries(data, start, order):
            kind, count, value = struct.unpack_from(f"{order}HII", data, at + 2)
            if tag == ORIENTATION:
                orientation = int(struct.unpack_from(f"{order}H", data, at + 8)[0])
            elif tag in TEXTS and kind in (ASCII, UTF8):
                text_at = at + 8 if count <= 4 else start + value
                text = bytes(data[text_at : text_at + count]).rstrip(b"\0")
                if text.strip() and text_at + count <= len(data):
                    texts[tag] = text
            else:
                has_more |= tag not in IN_ANY_TIFF
    return orientation, texts, has_more


def exif_from_tiff(texts: Mapping[int, bytes], orientation: int | None) -> bytes | None:
    """EXIF with what a TIFF says in its own tags; None if it says nothing."""
    exif = Image.Exif()
    for tag, text in texts.items():
        if tag == DATE_TAKEN:
            exif.get_ifd(EXIF_IFD)[tag] = text.decode("ascii", "replace")
        else:
            exif[tag] = text
    if orientation not in (None, 1):  # 1 is upright, the default
        exif[ORIENTATION] = orientation
    return exif.tobytes() if texts or exif else None


def scaled_exif(exif: bytes, shape: tuple[int, ...], scale: int) -> bytes:
    """EXIF with sizes and resolutions corrected, and every other byte unchanged.

    Edited in place, since makers' notes contain offsets that only their makers understand. Damaged
    parts stay as they are.
    """
    data = bytearray(exif)
    with suppress(struct.error, KeyError):
        start, order = _start(data)
        for tag, at in _entries(data, start, order):
            if tag in WIDTHS or tag in HEIGHTS:
                size = shape[1] if tag in WIDTHS else shape[0]
                if struct.unpack_from(f"{order}H", data, at + 2)[0] == SHORT and size < 2**16:
                    struct.pack_into(f"{order}H", data, at + 8, size)
                else:
                    struct.pack_into(f"{order}HII", data, at + 2, LONG, 1, size)
            elif tag in RESOLUTIONS:
                value_at = start + struct.unpack_from(f"{order}I", data, at + 8)[0]
                numerator = struct.unpack_from(f"{order}I", data, value_at)[0] * scale
                if numerator < 2**32:
                    struct.pack_into(f"{order}I", data, value_at, numerator)
    return bytes(data)


def _start(data: bytearray) -> tuple[int, str]:
    """Where offsets start, and the byte order in `struct` notation."""
    start = 6 if data.startswith(b"Exif\0\0") else 0
    return start, {b"II": "<", b"MM": ">"}[bytes(data[start : start + 2])]


def _entries(data: bytearray, start: int, order: str) -> Iterator[tuple[int, int]]:
    """Tag and offset of each entry in the directories of the image and the camera."""
    directories = [start + struct.unpack_from(f"{order}I", data, start + 4)[0]]
    for directory in directories:
        count = struct.unpack_from(f"{order}H", data, directory)[0]
        for at in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHII", data, at)
            if tag == EXIF_IFD and len(directories) == 1:
                directories.append(start + value)
            yield tag, at
