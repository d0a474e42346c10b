"""Text from tokens that arrive one at a time.

A byte-level token may end in the middle of a UTF-8 character; what is not yet a whole character is held back until the
token that completes it.
"""

from __future__ import annotations

import codecs
import json
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers.decoders import DecodeStream


class StreamingDecoder:
    """One text being generated: `push` returns the new readable text, `finish` the rest.

    Joined together, the pieces equal decoding all ids at once; special tokens show nothing.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._special = {id_ for id_, token in backend.get_added_tokens_decoder().items() if token.special}
        self._byte_level = _is_byte_level(json.loads(backend.decoder.__getstate__()) if backend.decoder else None)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._shown = 0

    def push(self, token_id: int) -> str:
        """The text that this token makes readable; may be empty."""
        if self._byte_level:
            if token_id in self._special:
                return ""
            token = self._backend.id_to_token(token_id)
            return "" if token is None else self._utf8.decode(_bytes_of(token))
        # Other families join and strip spaces by rules of their own, which the library's stream knows.
        self._ids.append(token_id)
        text = self._stream.step(self._backend, token_id) or ""
        self._shown += len(text)
        return text

    def finish(self) -> str:
        """The text that was held back; bytes that never became a character are U+FFFD."""
        if self._byte_level:
            return self._utf8.decode(b"", final=True)
        return self._backend.decode(self._ids, skip_special_tokens=True)[self._shown :]


def _is_byte_level(decoder: Any) -> bool:
    return isinstance(decoder, dict) and decoder.get("type") == "ByteLevel"


def _bytes_of(token: str) -> bytes:
    table = _byte_table()
    try:
        return bytes(table[character] for character in token)
    except KeyError:
        return token.encode()  # an added token, stored as it reads


@lru_cache(maxsize=1)
def _byte_table() -> dict[str, int]:
    """Character -> byte of GPT-2's alphabet: printable Latin-1 stands for itself, the rest begins at U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table |= {chr(0x100 + number): byte for number, byte in enumerate(others)}
    return table
