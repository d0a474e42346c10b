"""The HTML that outputs and markdown may bring into a report: text, tables and embedded images; nothing that acts."""

from __future__ import annotations

from bleach import clean
from bleach.css_sanitizer import CSSSanitizer
from bs4 import BeautifulSoup

_TAGS = frozenset((
    "a", "abbr", "b", "blockquote", "br", "caption", "code", "col", "colgroup", "dd", "del", "details", "div", "dl",
    "dt", "em", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "ins", "kbd", "li",
    "mark", "ol", "p", "pre", "q", "s", "samp", "small", "span", "strong", "sub", "summary", "sup", "table", "tbody",
    "td", "tfoot", "th", "thead", "tr", "u", "ul", "var",
))  # fmt: skip
_ATTRIBUTES = frozenset((
    "align", "alt", "class", "colspan", "height", "href", "open", "rowspan", "src", "start", "style", "title", "width",
))  # fmt: skip
_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
# Their content is no text to be shown once the tag is gone.
_WITH_CONTENT = (
    "script", "style", "template", "noscript", "iframe", "object", "embed", "svg", "math", "title", "head",
)  # fmt: skip
_CSS = CSSSanitizer(
    allowed_css_properties=["background-color", "color", "font-style", "font-weight", "text-align", "width"]
)


def clean_html(element: object) -> str:
    """``element`` with only harmless tags and attributes; links lead to http(s) and mail, images are in the page."""
    html = element.decode() if isinstance(element, bytes) else str(element)
    if "<" not in html:
        return html
    soup = BeautifulSoup(html, "html.parser")
    for tag in soup(_WITH_CONTENT):
        tag.decompose()
    return clean(
        str(soup),
        tags=_TAGS,
        attributes=_allowed,
        protocols=["http", "https", "mailto", "data"],
        css_sanitizer=_CSS,
        strip=True,
    )


def _allowed(tag: str, name: str, value: str) -> bool:
    if name == "src":
        return tag == "img" and value.startswith("data:image/")
    if name == "href":
        return tag == "a" and value.startswith(("http://", "https://", "mailto:", "#"))
    if name == "id":
        return tag in _HEADINGS  # where links within the page lead to
    return name in _ATTRIBUTES
