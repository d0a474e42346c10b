"""The one exception family of HRM Lab.

Every message says what is wrong, where (file, line, field, value) and what to do about it. The command line prints the
message without a traceback and exits with ``exit_code``; ``--debug`` shows the traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path


class HRMError(Exception):
    """Base of everything this project raises on purpose; ``exit_code`` is what the process ends with."""

    exit_code = 2


class ConfigError(HRMError):
    """A setting, name or path is not acceptable."""


class DataError(HRMError):
    """A dataset is missing, empty, damaged, or not what it was when the run began."""


class CheckpointError(HRMError):
    """A checkpoint is missing, damaged, or does not fit the model it is loaded into."""


class BundleError(HRMError):
    """A bundle (finished run folder) is missing, damaged, or of another kind."""


class RegistryError(HRMError):
    """The expert registry or the goals are damaged, of a newer version, lack what was named, or refuse a change."""


class NewerError(RegistryError):
    """The expert registry or the goals were written by a newer version."""


class LockedError(HRMError):
    """Another live process holds the lock of a folder or file."""


class NotebookError(HRMError):
    """A recipe or notebook cannot be run, or its run failed."""


class MissingExtraError(HRMError):
    """A package that only some commands need is not installed; the message holds the install command."""


class NonFiniteLossError(HRMError):
    """The loss was not finite for as many steps in a row as ``--nan-patience`` allows."""

    exit_code = 3


class OutOfMemoryError(HRMError):
    """Memory ran out although the micro-batch was already 1."""

    exit_code = 4


class StorageError(HRMError):
    """The disk is full or the target cannot be written."""

    exit_code = 5


def missing_package(wish: str, package: str) -> MissingExtraError:
    """The error for what needs a package that is not installed."""
    return MissingExtraError(f"{wish} needs the package {package}: {install_command(package)}")


def install_command(package: str) -> str:
    """The shell command that adds a package to this Python, in the version that was tested where its pin is at hand."""
    pins = Path(__file__).parents[1] / "constraints.txt"  # in a checkout, which is how HRM Lab is installed
    words = [sys.executable, "-m", "pip", "install", *(["-c", str(pins)] if pins.is_file() else []), package]
    return " ".join(f'"{word}"' if " " in word else word for word in words)
