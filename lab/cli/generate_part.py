"""What an interrupted ``lab generate --prompt-file`` leaves: lines in ``OUT.part``, and beside it what wrote them.

A line follows from its prompt, its place, the weights and the settings. So a run can go on after the complete lines,
where all of these are as they were; ``OUT.part.json`` holds the last two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrm_engine.errors import ConfigError
from hrm_engine.store.files import read_json, storage_error, write_json
from hrm_engine.store.processes import is_alive, own_pid, started_at

if TYPE_CHECKING:
    from hrm_engine.inference.text.prompts import Prompt

_SCHEMA = 1
_ANEW = "--overwrite begins anew"


def part_of(out: Path) -> Path:
    """Where lines stand until the last one is there."""
    return out.with_name(out.name + ".part")


def record_of(out: Path) -> Path:
    """Where it stands what these lines were written with."""
    return out.with_name(out.name + ".part.json")


def write_record(out: Path, settings: Mapping[str, Any]) -> None:
    """Note the settings, and this process as the one that writes. Raises StorageError."""
    pid = own_pid()
    writer = {"pid": pid, "process_started": started_at(pid)}
    write_json(record_of(out), {"schema_version": _SCHEMA, "writer": writer, "settings": dict(settings)})


def refuse_live_writer(out: Path) -> None:
    """Raise ConfigError while another process is writing the part."""
    record = record_of(out)
    try:
        writer = read_json(record, ConfigError).get("writer") if record.is_file() else None
    except ConfigError:  # damaged: nobody can be asked
        return
    pid = writer.get("pid") if isinstance(writer, dict) else None
    if isinstance(pid, int) and pid != own_pid() and is_alive(pid, started=writer.get("process_started")):
        raise ConfigError(f"--out: process {pid} is writing {part_of(out)} now: wait until it ends, or stop it")


def finished_part(out: Path, prompts: Sequence[Prompt], settings: Mapping[str, Any]) -> tuple[int, int]:
    """How many complete lines ``OUT.part`` has, and how many bytes they take.

    Raises:
        ConfigError: there is no such file, it is being written now, or prompts, settings or weights are not those that
            its lines were written with. StorageError: it cannot be read.
    """
    part, record = part_of(out), record_of(out)
    if not part.is_file():
        told = f"{out} is whole already" if out.exists() else "start without --resume"
        raise ConfigError(f"--resume: there is no {part}; {told}")
    refuse_live_writer(out)
    _check_record(read_json(record, ConfigError) if record.is_file() else {}, settings, record)
    try:
        content = part.read_bytes()
    except OSError as problem:
        raise storage_error(problem, part, doing="read") from problem
    whole = content[: content.rfind(b"\n") + 1]  # of a line that was cut off nothing is kept
    lines = whole.split(b"\n")[:-1]
    for index, line in enumerate(lines):
        if index >= len(prompts) or not _is_answer(line, index, prompts[index]):
            raise ConfigError(
                f"--resume: {part}, line {index + 1} is not the answer to prompt {index} of this file, which was "
                f"changed since; {_ANEW}"
            )
    return len(lines), len(whole)


def _check_record(record: Mapping[str, Any], settings: Mapping[str, Any], where: Path) -> None:
    before, writer = record.get("settings"), record.get("writer")
    if record.get("schema_version") != _SCHEMA or not isinstance(before, dict) or not isinstance(writer, dict):
        raise ConfigError(f"--resume: {where} does not say what the lines were written with; {_ANEW}")
    now = json.loads(json.dumps(dict(settings)))  # as they look when they are read back
    if before.get("weights") != now["weights"]:
        raise ConfigError(f"--resume: the brain is not the one that wrote the lines beside {where}; {_ANEW}")
    told = [
        f"--{name.replace('_', '-')} was {before.get(name)} and is {value}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    if told:
        raise ConfigError(f"--resume goes on with the settings of before, but {'; '.join(told)}. Or {_ANEW}")


def _is_answer(line: bytes, index: int, prompt: Prompt) -> bool:
    try:
        answer = json.loads(line)
    except ValueError:
        return False
    wanted = {"index": index, **prompt.others, "prompt": prompt.text}
    return isinstance(answer, dict) and {key: answer.get(key) for key in wanted} == wanted
