"""What hypothesis draws from."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

DTYPES = ("bool", "uint8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")

dtypes = st.sampled_from([np.dtype(name) for name in DTYPES])
lengths = st.integers(1, 200)
tiles = st.integers(1, 128)
halos = st.integers(0, 72)


@st.composite
def axes_and_shapes(draw: st.DrawFn) -> tuple[str, tuple[int, ...]]:
    """Axes with Y and X, in any order, and a small shape."""
    others = draw(st.lists(st.sampled_from("TZC"), unique=True, max_size=2))
    samples = draw(st.sampled_from([None, 1, 2, 3, 4]))
    sizes = {"Y": draw(st.integers(1, 9)), "X": draw(st.integers(1, 9))}
    sizes |= {name: draw(st.integers(1, 3)) for name in others}
    if samples is not None:
        sizes["S"] = samples
    names = draw(st.permutations(sorted(sizes)))
    return "".join(names), tuple(sizes[name] for name in names)


def values(dtype: np.dtype, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random values over a good part of what a dtype holds."""
    rng = np.random.default_rng(seed)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return rng.normal(100.0, 50.0, shape).astype(dtype)
