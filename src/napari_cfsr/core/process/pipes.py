"""Messages between two processes over a pair of pipes: a small pickle, then arrays as raw bytes."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct("<Q")
CHUNK = 2**22  # bytes; small enough that no other thread waits for a copy


def send(stream: BinaryIO, message: Any, arrays: dict[str, NDArray[Any]] | None = None) -> None:
    """Write a message and arrays; raises `OSError` if nobody reads any more."""
    arrays = arrays or {}
    shapes = {k: (v.shape, v.dtype.str) for k, v in arrays.items()}
    head = pickle.dumps((message, shapes))
    stream.write(_HEADER.pack(len(head)))
    stream.write(head)
    for array in arrays.values():
        for part in _contiguous(array):
            data = part.reshape(-1).view(np.uint8).data
            for start in range(0, len(data), CHUNK):
                stream.write(data[start : start + CHUNK])
    stream.flush()


def _contiguous(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Parts that make up an array, each in one piece of memory; what has to be copied is small."""
    if array.flags.c_contiguous or array.nbytes <= CHUNK:
        yield np.ascontiguousarray(array)
    elif len(array) == 1:
        yield from _contiguous(array[0])
    else:
        step = max(1, CHUNK * len(array) // array.nbytes)
        for start in range(0, len(array), step):
            yield from _contiguous(array[start : start + step])


def receive(stream: BinaryIO) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Read a message and its arrays; raises `EOFError` if the other side is gone."""
    (length,) = _HEADER.unpack(_exactly(stream, bytearray(_HEADER.size)))
    message, shapes = pickle.loads(_exactly(stream, bytearray(length)))
    arrays = {}
    for name, (shape, dtype) in shapes.items():
        arrays[name] = np.empty(shape, dtype)
        _exactly(stream, arrays[name].reshape(-1).view(np.uint8))
    return message, arrays


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
