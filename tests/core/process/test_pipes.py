"""Messages between processes: what is sent arrives, and little memory is taken on the way."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_cfsr.core.process import pipes
from napari_cfsr.core.process.server import error_message
from napari_cfsr.errors import ImageError, ModelProcessError, OutOfMemoryError


@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=4, max_side=9), st.sampled_from("bhfd"))
def test_parts_of_arrays_arrive(data, shape, kind) -> None:
    whole = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    part = whole[data.draw(hnp.basic_indices(shape, allow_newaxis=False, allow_ellipsis=False))]
    part = np.asarray(part)
    if part.ndim > 1 and data.draw(st.booleans()):
        part = part.swapaxes(0, -1)
    stream = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipes, "CHUNK", data.draw(st.sampled_from([8, 64, 1 << 20])))
        pipes.send(stream, ("name", {"part": part}, [whole]))
        stream.seek(0)
        name, parts, (same,) = pipes.receive(stream)
    assert name == "name"
    np.testing.assert_array_equal(parts["part"], part)
    np.testing.assert_array_equal(same, whole)
    assert stream.read() == b""


def test_values_come_back_with_arrays_of_any_kind() -> None:
    arrays = [
        np.arange(24, dtype=">u2").reshape(2, 3, 4)[:, ::-1, ::2],
        np.zeros((0, 5)),
        np.array(7.5),
        np.array(["text"]),
        np.array([True, False]),
    ]
    stream = io.BytesIO()
    pipes.send(stream, {"images": arrays, "name": "x"})
    stream.seek(0)
    value = pipes.receive(stream)
    assert value["name"] == "x"
    for before, after in zip(arrays, value["images"], strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


class Nowhere(io.RawIOBase):
    """Counts what is written."""

    count = 0

    def write(self, data) -> int:
        self.count += len(data)
        return len(data)


def test_a_cropped_array_is_not_copied_as_a_whole() -> None:
    cropped = np.zeros((1, 3, 2000, 2000), np.float32)[:, :, 10:-10, 10:-10]
    stream = Nowhere()
    tracemalloc.start()
    pipes.send(stream, {"cropped": cropped})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cropped.nbytes < stream.count < cropped.nbytes + 1000
    assert peak < 2 * pipes.CHUNK < cropped.nbytes / 4


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ImageError("expected one"), ImageError, "expected one"),
        (MemoryError("of 3 GB"), OutOfMemoryError, "out of memory: of 3 GB"),
        (MemoryError(), OutOfMemoryError, "out of memory"),
        (KeyError("a"), ModelProcessError, "unexpected fault: KeyError: 'a'"),
    ],
)
def test_faults_keep_their_kind(error, kind, text) -> None:
    assert error_message(error) == ("error", kind, text)
