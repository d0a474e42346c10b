"""Byte-level tokenizers: training, files, special tokens, streaming."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from hrm_engine.data.text.tokenizer import Tokenizer, train_tokenizer
from hrm_engine.errors import ConfigError, DataError

DOCUMENTS = ["The cat sat on the mat. " * 20, "Über naïve Füße 😀 日本語\n\n\tdef f(x):\n    return x + 1\n" * 5]
TOKENIZER = train_tokenizer(DOCUMENTS, vocab_size=300)
# No document, so that hypothesis may try any text, with whole characters only (no halves of surrogate pairs).
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def gpt2_like() -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(DOCUMENTS, trainer)
    return backend


def metaspace() -> Backend:
    """A small tokenizer of the other great family: words begin with U+2581, bytes only as a fallback."""
    pieces = ["<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdehlor", "▁he", "llo"]
    model = models.BPE(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=[],
        unk_token="<unk>",
        byte_fallback=True,
    )
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    backend.add_special_tokens(["<s>", "</s>"])
    return backend


class TestTraining:
    def test_special_ids_and_size(self) -> None:
        assert (TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.pad_id) == (0, 1, 2)
        assert TOKENIZER.vocab_size == 300

    def test_a_small_corpus_gives_a_smaller_vocabulary(self) -> None:
        assert 259 <= train_tokenizer(["ab"], vocab_size=8192).vocab_size < 270

    def test_the_same_documents_give_the_same_tokenizer_in_another_process(self) -> None:
        code = (
            "import json, sys; from hrm_engine.data.text.tokenizer import train_tokenizer;"
            "print(train_tokenizer(json.load(sys.stdin), vocab_size=300).fingerprint)"
        )
        root, asked = Path(__file__).resolve().parents[2], json.dumps(DOCUMENTS)
        done = subprocess.run(
            [sys.executable, "-c", code], input=asked, cwd=root, capture_output=True, text=True, check=True
        )
        found = done.stdout.strip()
        assert found == TOKENIZER.fingerprint
        assert train_tokenizer(DOCUMENTS[:1], vocab_size=300).fingerprint != found

    def test_refusals(self) -> None:
        with pytest.raises(ConfigError, match="259"):
            train_tokenizer(DOCUMENTS, vocab_size=258)
        with pytest.raises(DataError, match="no document"):
            train_tokenizer([])


class TestEncoding:
    @given(ANY_TEXT)
    @settings(deadline=None)
    def test_round_trip(self, text: str) -> None:
        ids = TOKENIZER.encode(text)
        assert ids.dtype == np.int64
        assert TOKENIZER.decode(ids) == text

    @pytest.mark.parametrize("text", ["a<|endoftext|>b", "<|bos|>", "<|pad|> <|endoftext|>"])
    def test_special_tokens_written_in_a_text_stay_text(self, text: str) -> None:
        ids = TOKENIZER.encode(text)
        assert not set(ids.tolist()) & {0, 1, 2}
        assert TOKENIZER.decode(ids) == text

    def test_special_ids_show_nothing_unless_asked(self) -> None:
        ids = [TOKENIZER.bos_id, *TOKENIZER.encode("cat"), TOKENIZER.eos_id]
        assert TOKENIZER.decode(ids) == "cat"
        assert TOKENIZER.decode(ids, skip_special_tokens=False) == "<|bos|>cat<|endoftext|>"

    def test_half_a_surrogate_pair(self) -> None:
        assert TOKENIZER.decode(TOKENIZER.encode("a\udcffb")) == "a\ufffdb"

    def test_batches(self) -> None:
        texts = ["", "cat", "", DOCUMENTS[1]]
        for text, ids in zip(texts, TOKENIZER.encode_batch(texts), strict=True):
            assert ids.tolist() == TOKENIZER.encode(text).tolist()
        assert TOKENIZER.encode_batch([]) == []

    def test_a_long_text_has_the_same_tokens_in_pieces_as_whole(self) -> None:
        random.seed(0)
        words = ["cat", "the", "naïve", "x + 1", "\n\n", "  ", "12", "don't", "😀"]
        text = " ".join(random.choice(words) for _ in range(150_000))
        whole = TOKENIZER._backend.encode(text, add_special_tokens=False).ids
        assert TOKENIZER.encode(text).tolist() == whole
        assert len(text) > 256_000

    @pytest.mark.parametrize("text", ["a" * 600_000, " " * 600_000, "日" * 300_000])
    def test_a_long_text_without_a_place_to_cut(self, text: str) -> None:
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


class TestFiles:
    def test_save_and_load(self, tmp_path: Path) -> None:
        TOKENIZER.save(tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]
        for place in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
            loaded = Tokenizer.load(place)
            assert loaded.fingerprint == TOKENIZER.fingerprint
            assert (loaded.bos_id, loaded.eos_id, loaded.pad_id, loaded.vocab_size) == (0, 1, 2, 300)

    def test_gpt2_like_has_one_token_for_begin_and_end_and_no_padding(self, tmp_path: Path) -> None:
        gpt2_like().save(str(tmp_path / "tokenizer.json"))
        tokenizer = Tokenizer.load(tmp_path)
        assert tokenizer.bos_id == tokenizer.eos_id == tokenizer.pad_id == 0
        assert tokenizer.vocab_size == 300
        assert tokenizer.decode(tokenizer.encode("Füße 😀")) == "Füße 😀"

    @pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
    def test_names_from_hugging_face_files_survive_saving(self, tmp_path: Path, name: str) -> None:
        backend = gpt2_like()
        backend.add_special_tokens(["<turn>", "<gap>"])
        backend.save(str(tmp_path / "tokenizer.json"))
        roles = {"bos_token": None, "eos_token": {"content": "<turn>"}, "pad_token": "<gap>"}
        (tmp_path / name).write_text(json.dumps(roles))
        tokenizer = Tokenizer.load(tmp_path)
        assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (300, 300, 301)
        (tmp_path / "run").mkdir()
        tokenizer.save(tmp_path / "run")
        again = Tokenizer.load(tmp_path / "run" / "tokenizer.json")
        assert again.fingerprint == tokenizer.fingerprint
        assert (again.bos_id, again.eos_id, again.pad_id) == (300, 300, 301)

    def test_several_end_tokens_survive_saving(self, tmp_path: Path) -> None:
        backend = gpt2_like()
        assert Tokenizer(backend).end_ids == {0}
        Tokenizer(backend, end_ids=[0, 7, 345]).save(tmp_path)
        tokenizer = Tokenizer.load(tmp_path)
        assert (tokenizer.eos_id, tokenizer.end_ids) == (0, {0, 7, 345})
        assert tokenizer.fingerprint == Tokenizer(backend).fingerprint, "they decide no id of a text"

    @pytest.mark.parametrize("value", ["7", 7, [7, "8"], [True], None])
    def test_end_tokens_that_are_no_ids_are_refused(self, tmp_path: Path, value: object) -> None:
        gpt2_like().save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"end_token_ids": value}))
        with pytest.raises(DataError, match=r"tokenizer_config\.json: end_token_ids must be a list of token ids"):
            Tokenizer.load(tmp_path)

    def test_stored_padding_and_truncation_are_switched_off(self, tmp_path: Path) -> None:
        backend = gpt2_like()
        backend.enable_truncation(2)
        backend.enable_padding(length=50)
        backend.save(str(tmp_path / "tokenizer.json"))
        tokenizer = Tokenizer.load(tmp_path)
        text = "a rather long text"
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert 0 not in tokenizer.encode(text)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, ["no such", "lab implant"]),
            (b"", ["not valid JSON"]),
            (b'{\n"model": {', ["line 2", "not valid JSON"]),
            (b"[]", ["not a JSON object"]),
            (b'{"model": {"type": "BPE"}}', ["not a tokenizer"]),
            (b"\xff\xfe\x00", ["line 1", "not valid UTF-8"]),
        ],
    )
    def test_missing_and_damaged_files(self, tmp_path: Path, content: bytes | None, words: list[str]) -> None:
        file = tmp_path / "tokenizer.json"
        if content is not None:
            file.write_bytes(content)
        for place in (tmp_path, file):
            with pytest.raises(DataError) as caught:
                Tokenizer.load(place)
            assert str(file) in str(caught.value)
            assert all(word in str(caught.value) for word in words)

    def test_a_folder_in_the_older_format_says_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.json").write_text("{}")
        with pytest.raises(DataError, match="AutoTokenizer"):
            Tokenizer.load(tmp_path)

    def test_no_token_that_ends_a_document(self) -> None:
        backend = Backend(models.BPE(vocab={"a": 0}, merges=[]))
        with pytest.raises(DataError, match="eos_token"):
            Tokenizer(backend)


class TestStreaming:
    @given(st.lists(st.integers(0, 299), max_size=40))
    @settings(deadline=None)
    def test_pieces_join_to_the_whole(self, ids: list[int]) -> None:
        decoder = TOKENIZER.stream_decoder()
        pieces = [decoder.push(token) for token in ids]
        assert "".join(pieces) + decoder.finish() == TOKENIZER.decode(ids)

    @given(ANY_TEXT)
    @settings(deadline=None)
    def test_no_piece_shows_a_broken_character(self, text: str) -> None:
        decoder = TOKENIZER.stream_decoder()
        pieces = [decoder.push(int(token)) for token in TOKENIZER.encode(text)]
        assert "".join(pieces) == text
        assert decoder.finish() == ""
        if "\ufffd" not in text:
            assert not any("\ufffd" in piece for piece in pieces)

    def test_a_split_character_is_held_back(self) -> None:
        ids = [TOKENIZER._backend.token_to_id(character) for character in "ðŁĺģ"]  # the four bytes of U+1F601
        decoder = TOKENIZER.stream_decoder()
        assert [decoder.push(token) for token in ids] == ["", "", "", "😁"]
        decoder = TOKENIZER.stream_decoder()
        assert decoder.push(ids[0]) == ""
        assert decoder.finish() == "\ufffd"

    @pytest.mark.parametrize("text", ["hello hello", "hello é hello", "😁"])
    def test_the_family_that_is_not_byte_level(self, text: str) -> None:
        tokenizer = Tokenizer(metaspace())
        assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 1)
        ids = tokenizer.encode(text)
        decoder = tokenizer.stream_decoder()
        assert "".join(decoder.push(int(token)) for token in ids) + decoder.finish() == tokenizer.decode(ids) == text


END = {"id": 0, "content": "<|endoftext|>", "special": True, "normalized": False}
PLAIN = {
    "version": "1.0",
    "added_tokens": [{**END, "single_word": False, "lstrip": False, "rstrip": False}],
    "model": {"type": "BPE", "vocab": {"a": 1, "b": 2}, "merges": []},
}
FIXED = {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "chunk size must be non-zero"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "cannot parse|Cannot parse"),
        ({"model": {"type": "BPE", "vocab": {"a": 1, "b": 2}, "merges": ["a b"]}}, "out of range"),
        ({"model": {"type": "BPE", "vocab": {"a": 4294967295}, "merges": []}}, "token ids up to 4,294,967,295"),
    ],
    ids=["at work", "while it is read", "in its merges", "ids"],
)
def test_tokenizers_in_which_the_library_panics(tmp_path: Path, part: dict[str, object], words: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({**PLAIN, **part}))
    with pytest.raises(DataError, match=words):
        Tokenizer.load(tmp_path)


def test_padding_of_a_file_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({**PLAIN, "padding": FIXED, "truncation": None}))
    assert Tokenizer.load(tmp_path).encode("ab").tolist() == [1, 2]
