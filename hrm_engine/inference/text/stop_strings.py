"""Text that ends at a string, however tokens cut it."""

from __future__ import annotations

from collections.abc import Sequence


class StopFinder:
    """Passes a text through until one of the strings is complete; the text ends before it.

    What may be the beginning of one is held back until it is known. The result does not depend on how the text is cut
    into pieces: of several strings the one that is complete first counts, and of those the longest.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._held = ""
        self.has_ended = False

    def push(self, piece: str) -> str:
        """What can be shown after this piece."""
        text = self._held + piece
        places = [(at + len(string), at) for string in self._strings if (at := text.find(string)) >= 0]
        if places:
            self.has_ended, self._held = True, ""
            return text[: min(places)[1]]
        shown = len(text) - max((_overlap(text, string) for string in self._strings), default=0)
        self._held = text[shown:]
        return text[:shown]

    def rest(self) -> str:
        """What was held back, where the text ends otherwise."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, string: str) -> int:
    """Length of the longest end of ``text`` with which ``string`` begins."""
    return next((size for size in range(min(len(text), len(string) - 1), 0, -1) if text.endswith(string[:size])), 0)
