"""The encoding of a text file: a byte order mark is obeyed, UTF-8 is the rule, everything else must be sure."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain
from pathlib import Path

from hrm_engine.data.text.detection import ESCAPE, likely, surely
from hrm_engine.errors import DataError
from hrm_engine.reading import open_regular, open_text, refuse_packed

SURROGATES = re.compile("[\ud800-\udfff]")
"""Halves of pairs, which are no characters and cannot be encoded."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_MOST_REPLACED = 0.01
"""Largest share of characters that may be replaced: more, and it is another encoding."""
_MOST_NULS = 0.01
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Encoding:
    """How a file is decoded: its codec, its hash and size in bytes, and a sentence where it is not UTF-8."""

    codec: str
    sha256: str
    num_bytes: int
    note: str | None = None

    def decoded(self, path: Path) -> Iterator[tuple[str, int]]:
        """Lines with their ends, of whatever kind, each with how many of its characters were replaced."""
        with open_text(path, DataError, self.codec, _handler(self.codec)) as file:
            for line in file:
                yield replaced(line, self.codec)


def encoding_of(path: Path, named: str | None = None) -> Encoding:
    """Look at a whole file, a block at a time.

    Args:
        named: the encoding that the user names.

    Raises:
        DataError: more than 1 % of the characters would be replaced, and nothing else is sure; it names the file, the
            share and what to do.
        OSError: it cannot be read.
    """
    digest, num_bytes, num_nuls, is_escaped = hashlib.sha256(), 0, 0, False
    sample = start = b""
    for block in _blocks(path):
        digest.update(block)
        start = start or block[:64]
        num_bytes += len(block)
        num_nuls += block.count(0)
        is_escaped = is_escaped or ESCAPE in block
        if not sample or (sample.isascii() and (ESCAPE in block or not block.isascii())):
            sample = block
    refuse_packed(path, start, DataError)
    mark = next((codec for mark, codec in _MARKS.items() if start.startswith(mark)), None)
    about = (digest.hexdigest(), num_bytes)
    codec = mark or named or "utf-8"
    if codec in ("utf-16", "utf-32") and not mark:
        order = surely(sample)
        codec = order[0] if order and order[0].startswith(codec) else f"{codec}-le"
    share = _replaced_share(path, codec)
    is_plain = num_nuls <= _MOST_NULS * num_bytes and not is_escaped
    if share <= _MOST_REPLACED and (mark or named or is_plain):
        note = None if codec in ("utf-8", "utf-8-sig") or named else f"{path} is {codec.upper()}"
        return Encoding(codec, *about, note)
    problem = f"{path}: {share:.0%} of the characters are not {codec.upper()}" if share else f"{path} is not UTF-8 text"
    if mark or named:
        raise DataError(f"{problem}. Save it as UTF-8, or name another --encoding.")
    found = surely(sample)
    if found and _replaced_share(path, found[0]) <= _MOST_REPLACED:
        read_as = f"{path} is read as {found[0]} (confidence {found[1]:.0%}); --encoding names another"
        return Encoding(found[0], *about, read_as)
    perhaps = likely(sample)
    if not perhaps:
        raise DataError(f"{problem}, and no other encoding fits. Save it as UTF-8, or name its --encoding.")
    raise DataError(
        f"{problem}. It may be {' or '.join(perhaps)}, which is not sure: save it as UTF-8, or name its encoding, as "
        f"in --encoding {perhaps[0]}."
    )


def replaced(text: str, codec: str) -> tuple[str, int]:
    """The text with U+FFFD for each byte that its codec does not know, and their number."""
    if text.isascii():
        return text, 0
    if _handler(codec) == "replace":
        return text, text.count("\ufffd")
    return SURROGATES.subn("\ufffd", text)


def _handler(codec: str) -> str:
    # surrogateescape turns each byte into one code point of its own, which makes them countable; wide codes have none
    return "replace" if re.match(r"utf.?(16|32)", codec, re.IGNORECASE) else "surrogateescape"


def _blocks(path: Path) -> Iterator[bytes]:
    with BufferedReader(open_regular(path)) as file:
        while block := file.read(_BLOCK):
            yield block


def _replaced_share(path: Path, codec: str) -> float:
    decoder = codecs.getincrementaldecoder(codec)(_handler(codec))
    num_characters = num_replaced = 0
    for block in chain(_blocks(path), [b""]):
        try:
            text, count = replaced(decoder.decode(block, final=not block), codec)
        except UnicodeError:  # of codecs that can replace nothing
            return 1.0
        num_characters, num_replaced = num_characters + len(text), num_replaced + count
    return num_replaced / max(1, num_characters)
