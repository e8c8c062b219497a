"""The user's notes as HTML that can do nothing but be read."""

from markdown_it import MarkdownIt
from markdown_it.token import Token

TOP = 3  # the level of a note's own highest heading on the page


def as_html(markdown: str) -> str:
    """CommonMark with tables; HTML in it stays text, and pictures are left as written, since the page loads nothing."""
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
    tokens = parser.parse(markdown)
    for token in tokens:
        _fit(token)
        for inner in token.children or ():
            _fit(inner)
    html: str = parser.renderer.render(tokens, parser.options, {})
    return html


def _fit(token: Token) -> None:
    """Headings below the page's own; links open beside the page, which a frame may hold, and tell nothing about it."""
    if token.type in ("heading_open", "heading_close"):
        token.tag = f"h{min(6, int(token.tag[1]) + TOP - 1)}"
    if token.type == "link_open":
        token.attrs |= {"rel": "noopener noreferrer", "target": "_blank"}
