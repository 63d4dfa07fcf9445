"""Messages between two processes over a pair of pipes: a small pickle, then arrays as raw bytes.

Pickle's own out-of-band buffers would copy an array that is not contiguous as a whole.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct("<Q")
CHUNK = 2**22  # bytes; small enough that no other thread waits for a copy


class _Pickler(pickle.Pickler):
    """Puts arrays aside: no other thread could run while they were pickled in one go."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.arrays: list[NDArray[Any]] = []

    def persistent_id(self, value: Any) -> tuple[tuple[int, ...], str] | None:
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or not value.ndim:
            return None
        self.arrays.append(value)
        return value.shape, value.dtype.str


class _Unpickler(pickle.Unpickler):
    """Reads each array from the stream when it comes to its place."""

    def __init__(self, file: BinaryIO, stream: BinaryIO) -> None:
        super().__init__(file)
        self._stream = stream

    def persistent_load(self, about: tuple[tuple[int, ...], str]) -> NDArray[Any]:
        array: NDArray[Any] = np.empty(*about)
        _exactly(self._stream, array.reshape(-1).view(np.uint8))
        return array


def send(stream: BinaryIO, message: Any) -> None:
    """Write a message, a value with arrays anywhere inside; `OSError` if nobody reads any more."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(message)
    head = file.getvalue()
    stream.write(_HEADER.pack(len(head)))
    stream.write(head)
    for array in pickler.arrays:
        for part in _contiguous(array):
            data = part.reshape(-1).view(np.uint8).data
            for start in range(0, len(data), CHUNK):
                stream.write(data[start : start + CHUNK])
    stream.flush()


def _contiguous(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Parts that make up an array, each in one piece of memory; those that are copied are small."""
    if array.flags.c_contiguous or array.nbytes <= CHUNK:
        yield np.ascontiguousarray(array)
    elif len(array) == 1:
        yield from _contiguous(array[0])
    else:
        step = max(1, CHUNK * len(array) // array.nbytes)
        for start in range(0, len(array), step):
            yield from _contiguous(array[start : start + step])


def receive(stream: BinaryIO) -> Any:
    """Read a message; raises `EOFError` if the other side is gone."""
    (length,) = _HEADER.unpack(_exactly(stream, bytearray(_HEADER.size)))
    head = _exactly(stream, bytearray(length))
    return _Unpickler(io.BytesIO(head), stream).load()


def _exactly(stream: BinaryIO, buffer: Any) -> Any:
    """Fill `buffer` from the stream."""
    view = memoryview(buffer)
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled : filled + CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the other process is gone")
        filled += count
    return buffer
