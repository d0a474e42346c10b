"""Files -> documents, and which documents are held out.

A document must not be mixed with its neighbours: attention, positions and labels stop at its ends.

- ``.txt``: documents are separated by a line holding only ``<|endoftext|>``; a file without one is split at blank
  lines.
- ``.csv``: the column ``text``, else the only column that holds text. ``.json``: an array of objects with the field
  ``text`` or of strings. ``.jsonl``: one object with the field ``text`` a line.
- a folder: all such files in it and below (``data/folders.py``), in the order of their paths. A corpus made by this
  project (``train.jsonl`` beside ``validation.jsonl``) gives its training part only.

Reading is strict: a bad record is an error that names file, line and field, unless ``skip_bad_records`` asks for it to
be counted and left out.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from hrm_engine.config.keywords import takes
from hrm_engine.config.text_files import TextFilesConfig
from hrm_engine.data.folders import broken_link, data_folders
from hrm_engine.data.text.readers import END_OF_TEXT, READERS, FileReading
from hrm_engine.errors import DataError

ACCEPTED = ", ".join(READERS)


@dataclass(frozen=True)
class Source:
    """One file that was read: its hash, its size and its documents."""

    path: str
    sha256: str
    num_bytes: int
    num_documents: int
    text_field: str | None


@dataclass(frozen=True)
class Corpus:
    """Documents in file order, and how they were read.

    ``fingerprint`` is a sha256 over the contents of the files in order and the reading options; it does not depend on
    where the files lie. ``notes`` are sentences for the user.
    """

    documents: list[str]
    fingerprint: str
    sources: list[Source]
    num_replaced: int
    num_dropped_lines: int
    num_skipped_records: int
    num_empty_documents: int
    num_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def messages(self) -> list[str]:
        """What reading took, left out or changed, in sentences for the user."""
        messages = list(self.notes)
        if self.num_dropped_lines:
            messages.append(f"{self.num_dropped_lines} lines with non-ASCII characters were dropped (--ascii-only)")
        if self.num_skipped_records:
            messages.append(f"{self.num_skipped_records} bad records were skipped (--skip-bad-records)")
        return messages


@takes(TextFilesConfig)
def read_documents(path: str | Path, *, settings: TextFilesConfig) -> Corpus:
    """Read a file or folder of text.

    ``ascii_only`` drops every line that has a non-ASCII character. ``document_separator`` replaces the separator line
    of ``.txt`` files; an empty one means blank lines. ``encoding`` is that of files without a byte order mark (default:
    UTF-8, or what a file surely is); bytes that it does not know become U+FFFD and are counted. Line ends become
    ``\\n``.

    Raises:
        DataError: something cannot be read, more than 1 % of a file is not in its encoding, or no document is left.
    """
    ascii_only, skip_bad = settings.ascii_only, settings.skip_bad_records
    separator = _separator(settings.document_separator)
    files, notes = _files(Path(path))
    documents: list[str] = []
    sources: list[Source] = []
    replaced = dropped = skipped = empty = 0
    digest = hashlib.sha256()
    for file in files:
        reading = FileReading(file, settings.text_field, separator, skip_bad, settings.encoding)
        texts = READERS[file.suffix.lower()](reading)
        if reading.num_bytes == 0:
            if not skip_bad or len(files) == 1:
                raise DataError(f"{file}: the file is empty (0 bytes).")
            notes.append(f"{file}: the file is empty")
        before = len(documents)
        for text in texts:
            kept, gone = _clean(text, ascii_only=ascii_only)
            dropped += gone
            if kept:
                documents.append(kept)
            else:
                empty += 1
        replaced += reading.num_replaced
        skipped += reading.num_skipped_records
        notes += reading.notes
        if reading.num_replaced:
            share = reading.num_replaced / max(1, reading.num_characters)
            notes.append(f"{file}: {reading.num_replaced:,} characters ({share:.2%}) cannot be read and were replaced")
        digest.update(f"{file.suffix.lower()} {reading.sha256}\n".encode())
        field = None if file.suffix.lower() == ".txt" else reading.text_column or settings.text_field
        sources.append(Source(str(file), reading.sha256, reading.num_bytes, len(documents) - before, field))
    if not documents:
        raise DataError(_nothing_left(Path(path), dropped=dropped, skipped=skipped, ascii_only=ascii_only))
    # under the names, and without what is newer than, the fingerprints that runs have
    options = {
        "ascii_only": ascii_only,
        "separator": separator,
        "text_field": settings.text_field,
        "skip_bad": skip_bad,
    } | ({} if settings.encoding is None else {"encoding": settings.encoding})
    digest.update(json.dumps(options, sort_keys=True).encode())
    return Corpus(
        documents=documents,
        fingerprint=digest.hexdigest(),
        sources=sources,
        num_replaced=replaced,
        num_dropped_lines=dropped,
        num_skipped_records=skipped,
        num_empty_documents=empty,
        num_bytes=sum(source.num_bytes for source in sources),
        notes=tuple(notes),
    )


def split_holdout(documents: list[str], fraction: float = 0.05) -> tuple[list[str], list[str]]:
    """Split into (training, held out) by the hash of each document's text.

    The side of a document depends on nothing but its text (leading and trailing white space aside), so adding
    documents moves no other one, and equal texts never stand on both sides. At least one document is held out and at
    least one stays. Raises `DataError` for fewer than two distinct documents.
    """
    if not 0.0 < fraction < 1.0:
        raise DataError(f"The held-out fraction must lie between 0 and 1; {fraction} does not.")
    keys = [_document_key(document) for document in documents]
    distinct = sorted(set(keys))
    if len(distinct) < 2:
        raise DataError(
            f"The dataset has {len(distinct)} distinct document(s); at least 2 are needed to hold one out for "
            "evaluation. Give an evaluation file with --eval-file, or separate the documents: in .txt files by a line "
            f"holding only {END_OF_TEXT} (--document-separator changes it), else by blank lines."
        )
    threshold = int(fraction * 2**64)
    held = {key for key in distinct if key < threshold} or {distinct[0]}
    if len(held) == len(distinct):
        held.discard(distinct[-1])
    train = [document for document, key in zip(documents, keys, strict=True) if key not in held]
    held_out = [document for document, key in zip(documents, keys, strict=True) if key in held]
    return train, held_out


def _document_key(document: str) -> int:
    # surrogatepass: strings that did not come from our readers may hold lone surrogates.
    raw = document.strip().encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "big")


def _separator(option: str | None) -> str:
    if option is None:
        return END_OF_TEXT
    separator = option.strip("\r\n").strip(" \t")
    if "\n" in separator or "\r" in separator:
        raise DataError(f"--document-separator {option!r}: a separator is one line; this one has several.")
    return separator


def _clean(text: str, *, ascii_only: bool) -> tuple[str, int]:
    """The document without outer blank lines and, if ``ascii_only``, non-ASCII lines; the number of dropped ones."""
    text = text.replace("\r\n", "\n")
    dropped = 0
    if ascii_only and not text.isascii():
        lines = text.split("\n")
        kept = [line for line in lines if line.isascii()]
        dropped = len(lines) - len(kept)
        text = "\n".join(kept)
    return ("", dropped) if text.isspace() else (text.strip("\n"), dropped)


def _files(path: Path) -> tuple[list[Path], list[str]]:
    if "\0" in str(path):
        raise DataError(f"The dataset path {str(path)!r} holds a NUL character.")
    try:
        if path.is_dir():
            return _folder_files(path)
        exists, regular = path.exists(), path.is_file()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if broken := broken_link(path):
        raise DataError(broken)
    if not exists:
        raise DataError(
            f"{path}: no such file or folder. Give a dataset ({ACCEPTED}, or a folder of them); "
            "`lab data build-python-docs` makes one from this Python's own documentation."
        )
    if not regular:
        raise DataError(f"{path}: not a regular file.")
    if path.suffix.lower() not in READERS:
        kind = f'files with the suffix "{path.suffix}" are not read'
        raise DataError(f"{path}: {kind}. Accepted are {ACCEPTED}, unpacked.")
    return [path], []


def _folder_files(folder: Path) -> tuple[list[Path], list[str]]:
    files: list[Path] = []
    notes: list[str] = []
    num_others = 0
    for part in data_folders(folder, READERS):
        names = {file.name for file in part.files}
        # Files of our builders: the description is no text, and validation text is not for training.
        built = {"validation.jsonl", "dataset.json"} & names if "train.jsonl" in names else set()
        if built:
            notes.append(f"{part.path}: {' and '.join(sorted(built))} left out beside train.jsonl")
        files += [file for file in part.files if file.name not in built]
        num_others += part.num_others
    if not files:
        raise DataError(f"{folder}: the folder holds no dataset file. Accepted are {ACCEPTED}.")
    if num_others:
        notes.append(f"{folder}: {num_others} file(s) with other suffixes left out")
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix()), notes


def _nothing_left(path: Path, *, dropped: int, skipped: int, ascii_only: bool) -> str:
    reasons = []
    if ascii_only and dropped:
        reasons.append(f"--ascii-only dropped {dropped} line(s)")
    if skipped:
        reasons.append(f"{skipped} bad record(s) were skipped")
    reason = " (" + " and ".join(reasons) + ")" if reasons else ""
    return f"{path}: no document is left{reason}. The dataset must hold some text."
