"""How files of text are read, wherever a command takes some."""

from __future__ import annotations

import codecs
from typing import Annotated

from pydantic import Field, field_validator

from hrm_engine.config.base import Config, Needs

_OfFiles = Needs("dataset_file")


class TextFilesConfig(Config):
    """How a file or folder of text is read."""

    ascii_only: Annotated[bool, _OfFiles] = Field(
        False, description="Drop lines with non-ASCII characters; the count is reported."
    )
    document_separator: Annotated[str | None, _OfFiles] = Field(
        None, description="Line that separates documents in .txt files. Default: <|endoftext|>, else blank lines."
    )
    text_field: Annotated[str, _OfFiles] = Field(
        "text", min_length=1, description="Field or column with the text (.csv, .json, .jsonl)."
    )
    skip_bad_records: Annotated[bool, _OfFiles] = Field(
        False, description="Skip and count records that cannot be read."
    )
    encoding: Annotated[str | None, _OfFiles] = Field(
        None,
        description="Encoding of text without a byte order mark, such as cp1252 or gb18030. Default: UTF-8, or the "
        "encoding that the text clearly has.",
    )

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        if name is None:
            return None
        try:
            b" ".decode(name, "ignore")
        except LookupError as error:
            raise ValueError(f"there is no text encoding {name!r}; usual ones are utf-8, cp1252 and gb18030") from error
        return codecs.lookup(name).name
