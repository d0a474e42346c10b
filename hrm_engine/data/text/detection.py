"""Which encoding bytes without a mark have, where they are no UTF-8: the sure answer, or what may be meant."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

ESCAPE = b"\x1b$"
"""What switches to another alphabet in ISO 2022, where all bytes are ASCII."""
_ESCAPED = ("iso2022_jp_ext", "iso2022_kr")
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_USUAL = "cp1252"  # of most such files, and never far from what a detection says
_IN_USE = (
    *(_USUAL, "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "iso8859_2", "koi8_r"),
    *("cp437", "cp850", "cp852", "cp866", "mac_roman", "cp932", "euc_jp", "cp949", "big5", "gb18030"),
)
_LEAST_CHARACTERS = 20
"""Fewer characters beyond ASCII may fit by chance."""
_LEAST_SHARE = 0.95


@dataclass(frozen=True)
class _Family:
    """An encoding of thousands of characters, and which of them ordinary text is made of.

    Those begin in the codec ``ordinary`` with a byte of ``first``, and some are of the ``script``. Encodings of one
    byte have no such row: each takes nearly every file for its own, so none of them is ever sure.
    """

    codec: str
    ordinary: str
    first: bytes
    script: re.Pattern[str]

    def share(self, characters: Counter[str]) -> float:
        """How much of a text is ordinary, from 0 to 1."""
        usual = script = 0
        for character, count in characters.items():
            byte = character.encode(self.ordinary, "ignore")[:1]
            usual += count * (len(byte) == 1 and byte in self.first)
            script += count * (self.script.match(character) is not None)
        return usual / characters.total() if 10 * script >= characters.total() else 0.0


def _bytes(*ranges: tuple[int, int]) -> bytes:
    return bytes(byte for first, last in ranges for byte in range(first, last + 1))


_JAPANESE = ("euc_jp", _bytes((0xA1, 0xA5), (0xB0, 0xCF)), re.compile("[\u3041-\u30ff]"))
_CHINESE = re.compile("[\u4e00-\u9fff]")
_FAMILIES = (  # a narrow one before a wide one, where its text would be ordinary too
    _Family("cp932", *_JAPANESE),
    _Family("euc_jp", *_JAPANESE),
    _Family("cp949", "euc_kr", _bytes((0xA1, 0xA3), (0xB0, 0xC8)), re.compile("[\uac00-\ud7a3]")),
    _Family("big5", "big5", _bytes((0xA1, 0xC6)), _CHINESE),
    _Family("gb18030", "gb2312", _bytes((0xA1, 0xA3), (0xB0, 0xD7)), _CHINESE),
)


def surely(sample: bytes) -> tuple[str, float] | None:
    """The encoding of a sample, and from 0 to 1 how much of it is ordinary text; None where that is not sure."""
    if ESCAPE in sample:
        return next(((codec, 1.0) for codec in _ESCAPED if _decoded(sample, codec)), None)
    if 0 in sample:
        texts = {codec: text for codec in _WIDE if (text := _decoded(sample, codec))}
        # the right order of bytes has the spaces and the line ends
        codec = max(texts, key=lambda codec: sum(map(texts[codec].count, " \r\n")), default=None)
        share = 0.0 if codec is None else _printable_share(texts[codec])
        return (codec, share) if codec and share >= _LEAST_SHARE else None
    for family in _FAMILIES:
        characters = Counter(character for character in _decoded(sample, family.codec) if not character.isascii())
        if characters.total() >= _LEAST_CHARACTERS and (share := family.share(characters)) >= _LEAST_SHARE:
            return family.codec, share
    return None


def likely(sample: bytes) -> list[str]:
    """Encodings that may be meant, the likeliest first; none where nothing fits."""
    from charset_normalizer import from_bytes

    matches = list(from_bytes(sample, cp_isolation=list(_IN_USE)))
    # a match stands for all encodings that give the same text
    near = [name for match in matches if match.chaos < matches[0].chaos + 0.1 for name in match.could_be_from_charset]
    near.sort(key=lambda encoding: encoding != _USUAL)
    return list(dict.fromkeys([*near[:2], _USUAL])) if near else []


def _decoded(sample: bytes, codec: str) -> str:
    """The text, without a character that the sample may end in; empty where it is none of this codec."""
    try:
        return codecs.getincrementaldecoder(codec)("strict").decode(sample)
    except UnicodeError:
        return ""


def _printable_share(text: str) -> float:
    odd = sum(count for each, count in Counter(text).items() if unicodedata.category(each) in ("Cc", "Cn", "Co"))
    return 1.0 - (odd - sum(map(text.count, "\t\r\n"))) / len(text)
