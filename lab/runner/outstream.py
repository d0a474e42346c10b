"""stdout and stderr of a kernel that the runner started; this module is loaded inside that kernel.

A cell that prints without end must fill neither the notebook nor the memory between kernel and runner. So the cut is
made here, where the text arises: everything goes to a file of the run, and only the first part of each cell's output
goes on to the notebook. ipykernel takes the class by its documented setting ``IPKernelApp.outstream_class``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ipykernel.iostream import OutStream

LOG_VARIABLE = "HRM_LAB_OUTPUT_LOG"
CAP_VARIABLE = "HRM_LAB_OUTPUT_CAP"
DEFAULT_CAP = 500_000
"""Characters of one stream of one cell that reach the notebook."""


class CappedOutStream(OutStream):
    """``OutStream`` that writes all text to the file in ``HRM_LAB_OUTPUT_LOG`` and passes on a limited part."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._cap = int(os.environ.get(CAP_VARIABLE, DEFAULT_CAP))
        self._log_path = os.environ.get(LOG_VARIABLE, "")
        # Appending in one call each keeps both streams, and forked children, from overwriting one another.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._log = os.open(self._log_path, flags, 0o666) if self._log_path else -1
        self._passed: dict[str, int] = {}
        super().__init__(*args, **kwargs)

    def write(self, string: str) -> int:
        """Take ``string`` whole, whatever part of it is passed on."""
        if not isinstance(string, str):
            super().write(string)  # refuses it, in the words of the library
            return 0
        with self._buffer_lock:
            self._keep(string)
            # A thread that outlives its cell writes under that cell's id, so each id has a count of its own.
            cell = str(self.parent_header.get("msg_id", ""))
            passed = self._passed.get(cell, 0)
            if passed > self._cap:
                return len(string)
            part = string[: self._cap - passed]
            self._passed[cell] = passed + len(part)
            if len(part) < len(string):
                self._passed[cell] = self._cap + 1
                part += f"\n[cut after {self._cap:,} characters; all of it is in {Path(self._log_path).name}]\n"
        super().write(part)
        return len(string)

    def _keep(self, string: str) -> None:
        if self._log < 0:
            return
        data = memoryview(string.encode("utf8", errors="surrogatepass"))
        try:
            while data:
                data = data[os.write(self._log, data) :]
        except OSError:  # a full disk must not end the cell; the notebook still has the beginning
            os.close(self._log)
            self._log = -1
