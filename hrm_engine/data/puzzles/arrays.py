"""Arrays that others wrote: ``.npy`` files of plain numbers.

Their headers are matched, not evaluated as numpy does, and the size of the file must be what they state. So a damaged
header ends in a message, and memory holds no more than the file has.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from hrm_engine.errors import DataError
from hrm_engine.reading import open_regular, refuse_pointer

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
"""Bytes of the header's length, by the version of the format."""
_LONGEST_HEADER = 4096
_HEADER = re.compile(
    r"\{'descr': '([^']{1,20})', 'fortran_order': (False|True), 'shape': \(((?:\d{1,15}, ?)*(?:\d{1,15})?)\), ?\} *\n?"
)
_NUMBERS = re.compile(r"[<>=|]?([iuf])(1|2|4|8)")


def read_array(path: Path, kinds: str, *, is_mapped: bool = False) -> npt.NDArray[Any]:
    """The numbers in a file.

    Args:
        kinds: letters of the kinds of numbers that are accepted: i, u, f.
        is_mapped: they stay on the disk.

    Raises:
        DataError: it is missing, damaged, or holds something else; the message names the file and the cure.
    """
    try:
        with open_regular(path) as file:
            return _read(path, file, kinds, is_mapped)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: the dataset is incomplete; build or copy it again") from None
    except (OSError, ValueError, MemoryError) as problem:
        why = getattr(problem, "strerror", None) or problem or "there is not enough memory"
        raise DataError(f"{path} cannot be read ({why}); build or copy the dataset again") from problem


def _read(path: Path, file: BinaryIO, kinds: str, is_mapped: bool) -> npt.NDArray[Any]:
    size = os.fstat(file.fileno()).st_size
    beginning = file.read(_LONGEST_HEADER)
    refuse_pointer(path, beginning, DataError)
    num_bytes = _LENGTH_BYTES.get(tuple(beginning[6:8])) if beginning.startswith(_MAGIC) else None
    start = 8 + (num_bytes or 0)
    end = start + int.from_bytes(beginning[8:start], "little")
    header = _HEADER.fullmatch(beginning[start:end].decode("latin-1")) if num_bytes else None
    if header is None:
        raise _damaged(path, "its header is none of numbers")
    number = _NUMBERS.fullmatch(header[1])
    if number is None or number[1] not in kinds:
        held, needed = np.dtype(header[1]) if number else repr(header[1]), "numbers" if "f" in kinds else "integers"
        raise DataError(f"{path} holds {held}, and {needed} are needed: convert it")
    dtype = np.dtype(header[1])
    shape = tuple(int(length) for length in re.findall(r"\d+", header[3]))
    if end + math.prod(shape) * dtype.itemsize != size:
        raise _damaged(
            path, f"its header states {' x '.join(map(str, shape))} numbers, and the file has {size:,} bytes"
        )
    order = "F" if header[2] == "True" else "C"
    if is_mapped and size > end:
        return np.memmap(file, dtype, mode="r", offset=end, shape=shape, order=order)
    file.seek(end)
    return np.fromfile(file, dtype, count=math.prod(shape)).reshape(shape, order=order)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path} is not a whole .npy array ({why}); build or copy the dataset again")
