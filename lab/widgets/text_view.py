"""Where a text model thinks long: its tokens, coloured by the segments that each of them ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.data.text.drawing import depth_html, depth_legend, depth_text
from hrm_engine.errors import ConfigError
from hrm_engine.inference import Generation
from hrm_engine.inference.text.reading import read_tokens


class TextView:
    """Tokens of a text: a darker background means more segments, and pointing at a token tells how many.

    It is HTML without scripts, so it looks the same in a notebook, in one that ran in a batch and in pages made of it.

    Args:
        tokens: text of each token.
        depths: segments that each ran.
        num_segments: segments at most; by default the deepest token's.
        prompt: text before, which is not coloured.
        losses: nats of each token, shown beside its depth.

    Raises:
        ValueError: not one depth, or not one loss, for each token, or a depth that is not 1 to ``num_segments``.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        depths: Sequence[int],
        *,
        num_segments: int | None = None,
        prompt: str = "",
        losses: Sequence[float] | None = None,
    ) -> None:
        most = max(depths, default=1) if num_segments is None else num_segments
        for name, values in (("depths", depths), ("losses", losses)):
            if values is not None and len(tokens) != len(values):
                raise ValueError(f"{len(tokens)} tokens and {len(values)} {name}: one for each is needed")
        if not all(1 <= depth <= most for depth in depths):
            raise ValueError(f"depths from {min(depths)} to {max(depths)}: 1 to {most} are possible")
        self.tokens, self.depths, self.losses = tokens, depths, losses
        self.num_segments, self.prompt = most, prompt

    @classmethod
    def of(cls, generation: Generation) -> TextView:
        """The view of a generated text."""
        return cls(generation.tokens, generation.depths, num_segments=generation.num_segments, prompt=generation.prompt)

    @classmethod
    def read(cls, bundle: Bundle, text: str, *, halt_threshold: float = 0.5) -> TextView:
        """The view of a given text: depths before each token, and how much it surprised the model there.

        Raises:
            ConfigError: a threshold out of range, a model of one segment, a text longer than the context.
        """
        if bundle.model.halt_head is None:
            raise ConfigError(f"{bundle.path} runs one segment at every token: there is no depth to look at")
        tokens = read_tokens(bundle, text, halt_threshold=halt_threshold)
        return cls(
            [token.text for token in tokens],
            [token.depth for token in tokens],
            num_segments=bundle.config.halt_max_steps,
            losses=[token.loss for token in tokens],
        )

    def html(self) -> str:
        """The text, and below it what the backgrounds mean."""
        most, losses = self.num_segments, self.losses
        shown = depth_html(self.tokens, self.depths, num_segments=most, prompt=self.prompt, losses=losses)
        return f"{shown}<br>{depth_legend(self.depths, num_segments=most, losses=losses)}"

    def text(self) -> str:
        """The same as plain text, the depth behind every token."""
        return depth_text(self.tokens, self.depths, prompt=self.prompt, losses=self.losses)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return {"text/html": self.html(), "text/plain": self.text()}
