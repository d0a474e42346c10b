"""Where a text model thinks long: its tokens, coloured by the segments that each of them ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hrm_engine.data.text.drawing import depth_html, depth_legend, depth_text
from hrm_engine.inference import Generation


class TextView:
    """Tokens on grounds that are stronger the deeper they are; the depth of one is said when it is pointed at.

    It is HTML without scripts, so it looks the same in a notebook, in one that ran in a batch and in pages made of it.

    Args:
        tokens: text of each token.
        depths: segments that each ran.
        num_segments: segments at most; by default the deepest token's.
        prompt: text before, which is not coloured.

    Raises:
        ValueError: not one depth for each token, or one that is not 1 to ``num_segments``.
    """

    def __init__(
        self, tokens: Sequence[str], depths: Sequence[int], *, num_segments: int | None = None, prompt: str = ""
    ) -> None:
        most = max(depths, default=1) if num_segments is None else num_segments
        if len(tokens) != len(depths):
            raise ValueError(f"{len(tokens)} tokens and {len(depths)} depths: one for each is needed")
        if not all(1 <= depth <= most for depth in depths):
            raise ValueError(f"depths from {min(depths)} to {max(depths)}: 1 to {most} are possible")
        self.tokens, self.depths, self.num_segments, self.prompt = tokens, depths, most, prompt

    @classmethod
    def of(cls, generation: Generation) -> TextView:
        """The view of a generated text."""
        return cls(generation.tokens, generation.depths, num_segments=generation.num_segments, prompt=generation.prompt)

    def html(self) -> str:
        """The text, and below what the grounds mean."""
        shown = depth_html(self.tokens, self.depths, num_segments=self.num_segments, prompt=self.prompt)
        return f"{shown}<br>{depth_legend(self.depths, num_segments=self.num_segments)}"

    def text(self) -> str:
        """The same as plain text, the depth behind every token."""
        return depth_text(self.tokens, self.depths, prompt=self.prompt)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return {"text/html": self.html(), "text/plain": self.text()}
