"""One thread for all tests of this folder."""

from tests.models.tiny import one_thread  # noqa: F401
