"""The file of ``lab generate --prompt-file --out``: one line of JSON for each prompt, whole or not there.

Lines go to ``OUT.part``, which gets the name OUT when it is complete. A line follows from its prompt, its place, the
weights and the settings, so an interrupted run can go on after the complete lines where all of these are as they were;
``OUT.part.json`` holds the last two, and which process writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from hrm_engine.errors import ConfigError
from hrm_engine.inference.text.prompts import Prompt
from hrm_engine.store.files import read_json, storage_error, write_json
from hrm_engine.store.processes import is_alive

_SCHEMA = 1
_ANEW = "--overwrite begins anew"


class AnswerFile:
    """A context manager whose value writes a line. ``num_done`` lines are there already, with ``resume``.

    Args:
        settings: what the lines are written with, beside their prompts; JSON types.

    Raises:
        ConfigError: the file exists, or another process writes it; with ``resume`` also where there is nothing to go on
            with, or prompts or settings are not those of the lines that are there. Nothing is written before.
        StorageError: a file cannot be read or written.
    """

    def __init__(
        self, out: Path, prompts: Sequence[Prompt], settings: Mapping[str, Any], *, overwrite: bool, resume: bool
    ) -> None:
        self.part = out.with_name(out.name + ".part")
        self.num_done = 0
        self._out, self._record_file = out, out.with_name(out.name + ".part.json")
        self._prompts, self._settings = prompts, json.loads(json.dumps(dict(settings)))
        self._mode = "a" if resume else "w" if overwrite else "x"
        self._num_bytes = 0
        self._file: IO[str] | None = None
        if out.is_dir():
            raise ConfigError(f"--out: {out} is a folder: name a file in it")
        if resume:
            self._read_part()
        elif overwrite:
            self._record()
        elif out.exists():
            raise ConfigError(f"--out: {out} exists: give another name, or --overwrite to replace it")
        elif self.part.exists():
            raise ConfigError(
                f"--out: {self.part} is left of an interrupted run, or being written by another one: go on with it by "
                "--resume, give another name, or --overwrite to replace it"
            )

    def __enter__(self) -> Callable[[str], None]:
        try:
            self.part.parent.mkdir(parents=True, exist_ok=True)
            if self._mode == "a":
                os.truncate(self.part, self._num_bytes)
            self._file = self.part.open(self._mode, encoding="utf-8", newline="\n")
        except OSError as problem:
            raise storage_error(problem, self.part) from problem
        write_json(self._record_file, {"schema_version": _SCHEMA, "writer": os.getpid(), "settings": self._settings})
        return self._write

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._file is not None:
                self._file.close()
            if kind is None:
                self.part.replace(self._out)
            elif not self.num_done:
                self.part.unlink(missing_ok=True)
            if kind is None or not self.num_done:
                self._record_file.unlink(missing_ok=True)
        except OSError as problem:
            raise storage_error(problem, self._out) from (error or problem)

    def _write(self, line: str) -> None:
        assert self._file is not None
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as problem:
            raise storage_error(problem, self.part) from problem
        self.num_done += 1

    def _record(self) -> dict[str, Any]:
        """What stands beside the part, {} where nothing can be read; raises while another process writes it."""
        try:
            record = read_json(self._record_file, ConfigError) if self._record_file.is_file() else {}
        except ConfigError:
            return {}
        writer = record.get("writer")
        if isinstance(writer, int) and writer != os.getpid() and is_alive(writer):
            raise ConfigError(f"--out: process {writer} is writing {self.part} now: wait until it ends, or stop it")
        return record

    def _read_part(self) -> None:
        """Count the complete lines of the part and check that they are the beginning of what would be written."""
        if not self.part.is_file():
            hint = f"{self._out} is whole already" if self._out.exists() else "start without --resume"
            raise ConfigError(f"--resume: there is no {self.part}; {hint}")
        record = self._record()
        before = record.get("settings")
        if record.get("schema_version") != _SCHEMA or not isinstance(before, dict):
            raise ConfigError(f"--resume: {self._record_file} does not say what the lines were written with; {_ANEW}")
        changed = [
            f"--{name.replace('_', '-')} was {before.get(name)} and is {value}"
            for name, value in self._settings.items()
            if before.get(name) != value
        ]
        if before.get("weights") != self._settings.get("weights"):
            raise ConfigError(
                f"--resume: the brain is not the one that wrote the lines beside {self._record_file}; {_ANEW}"
            )
        if changed:
            raise ConfigError(f"--resume goes on with the settings of before, but {'; '.join(changed)}. Or {_ANEW}")
        try:
            content = self.part.read_bytes()
        except OSError as problem:
            raise storage_error(problem, self.part, doing="read") from problem
        whole = content[: content.rfind(b"\n") + 1]  # a line that was cut off is written again
        lines = whole.split(b"\n")[:-1]
        for index, line in enumerate(lines):
            if index >= len(self._prompts) or not _is_answer(line, index, self._prompts[index]):
                raise ConfigError(
                    f"--resume: {self.part}, line {index + 1} is not the answer to prompt {index} of this file, which "
                    f"was changed since; {_ANEW}"
                )
        self.num_done, self._num_bytes = len(lines), len(whole)


def _is_answer(line: bytes, index: int, prompt: Prompt) -> bool:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return False
    expected = {"index": index, **prompt.others, "prompt": prompt.text}
    return isinstance(answer, dict) and {key: answer.get(key) for key in expected} == expected
