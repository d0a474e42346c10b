"""Text whose tokens are coloured by depth, as HTML without scripts or style sheets, for pages, notebooks and reports.

A token has a ground of one hue, stronger the more segments it ran, and shows its depth under the pointer. Text keeps
the colour of the page, so both light and dark pages can show it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from html import escape

_RGB = "209,101,26"
_FAINTEST, _STRONGEST = 0.1, 0.6
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NEW_LINE = "&#8629;<br>"


def depth_html(
    tokens: Sequence[str],
    depths: Sequence[int],
    *,
    num_segments: int,
    prompt: str = "",
    losses: Sequence[float] | None = None,
) -> str:
    """A text as HTML.

    Args:
        tokens: text of each token; empty ones are not drawn.
        depths: segments that each of them ran, 1 to ``num_segments``.
        prompt: text before them, without a ground.
        losses: nats of each token, shown beside its depth.

    Raises:
        ValueError: not one depth, or not one loss, for each token.
    """
    words = [""] * len(tokens) if losses is None else [f", loss {loss:.3f}" for loss in losses]
    parts = [f"<span>{_marked(prompt)}</span>"] if prompt else []
    for number, (token, depth, more) in enumerate(zip(tokens, depths, words, strict=True), start=1):
        if token:
            about = f"token {number}: {_segments(depth)} of {num_segments}{more}"
            parts.append(f'<span style="{_ground(depth, num_segments)}" title="{about}">{_marked(token)}</span>')
    return f"<div>{''.join(parts)}</div>"


def depth_legend(depths: Sequence[int], *, num_segments: int, losses: Sequence[float] | None = None) -> str:
    """The ground of each depth, the number of its tokens, and the means, as HTML."""
    counts = Counter(depths)
    chips = (
        f'<span style="{_ground(depth, num_segments)}" title="{_tokens(counts[depth])}">'
        f"&nbsp;{depth}&nbsp;</span>&nbsp;{counts[depth]}"
        for depth in range(1, num_segments + 1)
        if num_segments <= 16 or counts[depth]
    )
    mean = f"mean {sum(depths) / len(depths):.2f} of {num_segments}{_mean_loss(losses)}" if depths else "no token"
    return f"<div>tokens by segments: {' &ensp; '.join(chips)} &ensp; {mean}</div>"


def depth_text(
    tokens: Sequence[str], depths: Sequence[int], *, prompt: str = "", losses: Sequence[float] | None = None
) -> str:
    """The same as plain text: a line with the depth behind every token, ``the/2 cat/4``, and a line of the means."""
    marked = "".join(f"{token}/{depth}" for token, depth in zip(tokens, depths, strict=True) if token)
    mean = f"\nmean depth {sum(depths) / len(depths):.2f}{_mean_loss(losses)}" if depths else ""
    return f"{prompt}{marked}{mean}"


def _mean_loss(losses: Sequence[float] | None) -> str:
    return f", mean loss {sum(losses) / len(losses):.3f} nats/token" if losses else ""


def _ground(depth: int, num_segments: int) -> str:
    share = (depth - 1) / (num_segments - 1) if num_segments > 1 else 0.0
    return f"background-color: rgba({_RGB},{_FAINTEST + share * (_STRONGEST - _FAINTEST):.2f})"


def _marked(text: str) -> str:
    """Text as HTML in which spaces and line ends stay, whatever style the page gives it."""
    shown = escape(_CONTROL.sub("\ufffd", text.replace("\r\n", "\n")))
    spaced = re.sub(" (?= )", "&nbsp;", shown).replace("\t", "&nbsp;&nbsp; ")
    return spaced.replace("\n", _NEW_LINE)


def _segments(depth: int) -> str:
    return f"{depth} segment{'s' * (depth != 1)}"


def _tokens(count: int) -> str:
    return f"{count} token{'s' * (count != 1)}"
