"""``lab logs``: the log of a run."""

from __future__ import annotations

import codecs
import time
from collections import deque
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Annotated, BinaryIO

from cyclopts import Parameter

from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.reading import open_regular
from hrm_engine.store.paths import LOG_FILE, Workspace
from hrm_engine.store.runs import find_run
from hrm_engine.store.status import live_state
from lab.cli.console import say, write
from lab.cli.parameters import switch

_POLL_S = 0.3


def logs(
    name: Annotated[str, Parameter(help="Name or id of a run, or the path of its folder.")],
    /,
    *,
    follow: Annotated[bool, switch("Go on until the run ends.", "--follow", "-f")] = False,
    lines: Annotated[int, Parameter(name=["--lines", "-n"], help="How many of the last lines; 0 = all.")] = 40,
) -> int:
    """Show the end of a run's log, or follow it while the run goes on."""
    if lines < 0:
        raise ConfigError(f"--lines {lines}: use 0 (all) or more")
    folder = find_run(name, Workspace.find())
    log = folder / LOG_FILE
    try:
        file = BufferedReader(open_regular(log, follow=False))
    except OSError as problem:
        raise BundleError(f"cannot read {log}: {problem.strerror}") from problem
    with file:
        decode = codecs.getincrementaldecoder("utf8")(errors="replace").decode
        for line in deque(file, maxlen=lines or None):
            write(decode(line))
        if follow:
            for fresh in _appended(file, log, folder):
                write(decode(fresh))
    return 0


def _appended(file: BinaryIO, log: Path, folder: Path) -> Iterator[bytes]:
    """What is appended until the run has ended; from the beginning again where the log was cut."""
    while True:
        # Read before the file: what a run writes last must not fall between the two.
        running = live_state(folder) == "running"
        try:
            size = log.stat().st_size
        except OSError:
            say(f"{log} was removed", stderr=True)
            return
        if size < file.tell():
            file.seek(0)
        if fresh := file.read():
            yield fresh
        elif running:
            time.sleep(_POLL_S)
        else:
            return
