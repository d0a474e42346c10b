"""Byte-level BPE tokenizers: train, load, save, encode, decode.

A `Tokenizer` knows the three ids that packing and generation need: begin, end and padding. Text is only ever text: a
document that spells ``<|endoftext|>`` in the middle of a line gets the tokens of those characters, not the end token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from hrm_engine.data.text.encodings import SURROGATES
from hrm_engine.data.text.stream_decoder import StreamingDecoder
from hrm_engine.errors import ConfigError, DataError
from hrm_engine.reading import load_json, told_by
from hrm_engine.store.files import write_text

BOS, EOS, PAD = "<|bos|>", "<|endoftext|>", "<|pad|>"
MIN_VOCAB_SIZE = 256 + 3  # every byte and the three special tokens
MAX_VOCAB_SIZE = 1 << 22  # ten times the largest vocabularies that there are

# How other families of models spell the three, for folders that do not say it themselves; first match wins.
_KNOWN_BOS = (BOS, "<|begin_of_text|>", "<|startoftext|>", "<bos>", "<s>", "[BOS]", "[CLS]")
_KNOWN_EOS = (EOS, "<|end_of_text|>", "<eos>", "</s>", "[EOS]", "[SEP]")
_KNOWN_PAD = (PAD, "<pad>", "[PAD]", "<|padding|>", "<|finetune_right_pad_id|>")
_CONFIG_FILE = "tokenizer_config.json"
_ROLE_FILES = (_CONFIG_FILE, "special_tokens_map.json")
_END_IDS = "end_token_ids"  # a key of our own; Hugging Face keeps the same in generation_config.json
# The library needs some hundred bytes for every character that it works on, so long texts are encoded in pieces and
# many texts in groups.
_PIECE_CHARACTERS = 256_000
_GROUP_CHARACTERS = 2_000_000
_CUT_SEARCH_CHARACTERS = 4_000
_PROBE = "A tokenizer's 1st words,\n\tif it can: \u00e9\u4e2d \U0001f642"


class Tokenizer:
    """A ``tokenizers`` tokenizer with its begin, end and padding ids.

    A family with one token for begin and end (GPT-2) gets the same id for both; without a padding token, padding is
    the end token, which is safe because padding is masked by place and not by id.

    Args:
        roles: names of the special tokens (``bos_token``, ``eos_token``, ``pad_token``).
        end_ids: at which a text that is generated ends; by default the end token alone. Models that were made
            elsewhere may have several, also such as the tokenizer has no name for.
    """

    def __init__(self, backend: Backend, roles: dict[str, str] | None = None, *, end_ids: Iterable[int] = ()) -> None:
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True
        self._backend = backend
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        if self.vocab_size > MAX_VOCAB_SIZE:
            raise DataError(f"The tokenizer has token ids up to {self.vocab_size - 1:,}: no vocabulary has so many.")
        roles = roles or {}
        bos = _find(vocabulary, roles.get("bos_token"), _KNOWN_BOS)
        eos = _find(vocabulary, roles.get("eos_token"), _KNOWN_EOS)
        pad = _find(vocabulary, roles.get("pad_token"), _KNOWN_PAD)
        eos = bos if eos is None else eos
        if eos is None:
            raise DataError(
                f"The tokenizer has no token that ends a document. Known names are {', '.join(_KNOWN_EOS)}; "
                'another one is named by "eos_token" in the tokenizer_config.json beside tokenizer.json.'
            )
        self.eos_id = eos
        self.bos_id = eos if bos is None else bos
        self.pad_id = eos if pad is None else pad
        self.end_ids = frozenset(end_ids) or frozenset({eos})

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """From a ``tokenizer.json`` or the folder that holds one. Raises `DataError` if it is missing or damaged.

        Names of special tokens are taken from ``tokenizer_config.json`` or ``special_tokens_map.json`` beside it.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            old = path.is_dir() and (path / "vocab.json").is_file()
            hint = "`lab implant` makes a tokenizer."
            if old:
                hint = "There is a vocab.json: load the folder once with transformers' AutoTokenizer and save it again."
            raise DataError(f"{file}: no such tokenizer file. {hint}")
        _read_json(file)
        with told_by(lambda why: DataError(f"{file}: not a tokenizer that this version can read ({why}).")):
            backend = Backend.from_file(str(file))
            backend.no_padding()  # to 10**12 tokens, say
            backend.no_truncation()
            # a part that cannot do its work shows only at work
            backend.decode(backend.encode(_PROBE, add_special_tokens=False).ids)
        return cls(backend, _read_roles(file.parent), end_ids=_read_end_ids(file.parent / _CONFIG_FILE))

    def save_to(self, folder: Path) -> list[str]:
        """Write ``tokenizer.json`` and what belongs to it into a bundle; their names. Raises StorageError."""
        self.save(folder / "tokenizer.json")
        return [name for name in ("tokenizer.json", _CONFIG_FILE) if (folder / name).is_file()]

    def save(self, path: str | Path) -> None:
        """Write ``tokenizer.json`` (a folder means that name inside it), atomically.

        Where the special tokens have names that `load` would not find by itself, or texts end at other tokens than the
        end token, a ``tokenizer_config.json`` beside the file says so.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        write_text(file, self._backend.to_str(pretty=True))
        alone = _ids_by_name(self._backend.get_vocab(with_added_tokens=True))
        has_other_ends = self.end_ids != {self.eos_id}
        if alone != (self.bos_id, self.eos_id, self.pad_id) or has_other_ends:
            token = self._backend.id_to_token
            names = {"bos_token": token(self.bos_id), "eos_token": token(self.eos_id), "pad_token": token(self.pad_id)}
            ends = {_END_IDS: sorted(self.end_ids)} if has_other_ends else {}
            write_text(file.parent / _CONFIG_FILE, json.dumps({**names, **ends}, indent=2) + "\n")

    def encode(self, text: str) -> np.ndarray:
        """Token ids (int64) of the text alone, without begin and end."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One int64 array of token ids per text, without begin and end."""
        parts_by_text: list[list[np.ndarray]] = [[] for _ in texts]
        for group in _groups((number, piece) for number, text in enumerate(texts) for piece in _pieces(text)):
            with told_by(lambda why: DataError(f"The tokenizer cannot encode a text ({why}).")):
                encodings = self._backend.encode_batch_fast([piece for _, piece in group], add_special_tokens=False)
            for (number, _), encoding in zip(group, encodings, strict=True):
                parts_by_text[number].append(np.array(encoding.ids, dtype=np.int64))
        return [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in parts_by_text]

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Text of the ids; bytes that form no character become U+FFFD."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def name_of(self, token: int) -> str:
        """The token of an id, as the vocabulary spells it. Raises KeyError."""
        name = self._backend.id_to_token(token)
        if name is None:
            raise KeyError(token)
        return str(name)

    def stream_decoder(self) -> StreamingDecoder:
        """A decoder for one text that arrives token by token."""
        return StreamingDecoder(self._backend)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over everything that decides which ids a text gets."""
        content = json.loads(self._backend.to_str())
        content["ids"] = [self.bos_id, self.eos_id, self.pad_id]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def train_tokenizer(documents: Iterable[str], *, vocab_size: int = 8192) -> Tokenizer:
    """Train a byte-level BPE tokenizer; the same documents in the same order give the same tokenizer.

    Ids 0, 1, 2 are BOS, EOS and PAD, then come the 256 bytes, then merges. A small corpus may yield fewer than
    ``vocab_size`` tokens. Raises `ConfigError` if the size cannot hold bytes and special tokens, `DataError` if there
    is no document.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise ConfigError(f"A vocabulary of {vocab_size} is too small: bytes and special tokens need {MIN_VOCAB_SIZE}.")
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pieces = [piece for document in documents for piece in _pieces(document)]
    if not pieces:
        raise DataError("There is no document to train a tokenizer on.")
    backend.train_from_iterator(pieces, trainer, length=len(pieces))
    return Tokenizer(backend)


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of bounded length, cut before a space that follows a word and precedes one.

    GPT-2's splitting rule, and those made after it, always split there, so the tokens are those of the whole text.
    Where a piece has no such place near its end, it is cut in the middle. Halves of surrogate pairs, which cannot be
    encoded, become U+FFFD.
    """
    if not text.isascii():
        text = SURROGATES.sub("\ufffd", text)
    at = 0
    while len(text) - at > _PIECE_CHARACTERS:
        end = at + _PIECE_CHARACTERS
        cut = end
        while True:
            cut = text.rfind(" ", end - _CUT_SEARCH_CHARACTERS, cut)
            if cut < 0 or not (text[cut - 1].isspace() or text[cut + 1].isspace()):
                break
        end = end if cut < 0 else cut
        yield text[at:end]
        at = end
    yield text[at:]


def _groups(pieces: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    group: list[tuple[int, str]] = []
    characters = 0
    for number, piece in pieces:
        if group and characters + len(piece) > _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
        group.append((number, piece))
        characters += len(piece)
    if group:
        yield group


def _find(vocabulary: dict[str, int], name: str | None, known: tuple[str, ...]) -> int | None:
    names = (name, *known) if name else known
    return next((vocabulary[name] for name in names if name in vocabulary), None)


def _ids_by_name(vocabulary: dict[str, int]) -> tuple[int | None, int | None, int | None]:
    bos, eos, pad = (_find(vocabulary, None, known) for known in (_KNOWN_BOS, _KNOWN_EOS, _KNOWN_PAD))
    eos = bos if eos is None else eos
    return eos if bos is None else bos, eos, eos if pad is None else pad


def _read_json(file: Path) -> dict[str, Any]:
    content = load_json(file, DataError)
    if not isinstance(content, dict):
        raise DataError(f"{file}: not a JSON object.")
    return content


def _read_roles(folder: Path) -> dict[str, str]:
    roles: dict[str, str] = {}
    for name in _ROLE_FILES:
        file = folder / name
        if not file.is_file():
            continue
        content = _read_json(file)
        for role in ("bos_token", "eos_token", "pad_token"):
            value = content.get(role)
            # Hugging Face writes either the token or an object that describes it.
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                roles.setdefault(role, value)
    return roles


def _read_end_ids(file: Path) -> list[int]:
    ids = _read_json(file).get(_END_IDS, []) if file.is_file() else []
    if not isinstance(ids, list) or not all(type(end) is int for end in ids):
        raise DataError(f"{file}: {_END_IDS} must be a list of token ids, not {str(ids)[:80]}.")
    return ids
