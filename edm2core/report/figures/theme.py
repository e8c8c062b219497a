"""Colours, fonts and lines of every drawing, in a light and a dark form."""

from typing import Any, Literal

Theme = Literal["light", "dark"]

# One colour for each recipe, as a pair for light and dark pages: Okabe's and Ito's hues, moved apart in lightness, so that each
# pair of the first four differs for eyes without red, green or blue cones too (tests/edm2core/report/figures/test_theme.py).
PALETTE = (
    ("#3459a6", "#3d8fe6"),  # blue
    ("#d9690b", "#f18e31"),  # orange
    ("#07a377", "#43e1ad"),  # green
    ("#c76ad8", "#e19cd9"),  # purple
    ("#825a00", "#f6e663"),  # brown, yellow
    ("#15285c", "#e6e9fe"),  # ink
    ("#7b7f87", "#8d95a3"),  # grey
    ("#7a1020", "#cf5743"),  # red
)
OUTLINES = {  # of the shapes in a legend, around 0, 0
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
    "square": "M-3.6 -3.6h7.2v7.2h-7.2z",
    "triangle-up": "M0 -4.6L4.4 3.6H-4.4z",
    "diamond": "M0 -5L4 0L0 5L-4 0z",
    "cross": "M-1.6 -4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "triangle-down": "M0 4.6L4.4 -3.6H-4.4z",
    "triangle-right": "M4.6 0L-3.6 4.4V-4.4z",
    "triangle-left": "M-4.6 0L3.6 4.4V-4.4z",
}
SHAPES = tuple(OUTLINES)  # one for each recipe, like colours
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 3], [12, 3, 2, 3])  # lengths of lines and gaps; the first is solid
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", sans-serif'  # the page's
HEAT = {"light": ["#eef3fb", "#8fb3e3", "#3f6fba", "#0e2c66"], "dark": ["#232a34", "#2f568f", "#6f9fdd", "#dcebff"]}  # of maps
LEVELS = {  # of a network, from its largest maps to its smallest
    "light": ["#f1605d", "#cd4071", "#9e2f7f", "#641a80", "#2c115f"],
    "dark": ["#fcf5bf", "#fec287", "#fb8861", "#e45065", "#b1408e"],
}
ACCENT = {"light": "#d1006c", "dark": "#ff6fb5"}
INKS = {  # text, secondary text, thin lines, surface
    "light": ("#1b1d21", "#5a6068", "#e2e3e0", "#ffffff"),
    "dark": ("#eceef1", "#a5acb6", "#31363f", "#1c1f25"),
}


def params(theme: Theme) -> list[dict[str, Any]]:
    """The colours that specifications name: of text, of what lies behind it, and of what is to be seen first."""
    ink, _, _, paper = INKS[theme]
    return [{"name": "ink", "value": ink}, {"name": "paper", "value": paper}, {"name": "accent", "value": ACCENT[theme]}]


def config(theme: Theme) -> dict[str, Any]:
    """Vega-Lite's configuration of a theme."""
    ink, soft, rule, surface = INKS[theme]
    number = 0 if theme == "light" else 1
    axis = {"labelColor": soft, "titleColor": soft, "gridColor": rule, "domainColor": rule, "tickColor": rule, "gridWidth": 1}
    words = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    above = {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "end", "titleBaseline": "bottom"}  # of the axis, in one line
    legend = {"labelColor": ink, "titleColor": soft, "orient": "top", "direction": "horizontal", "labelLimit": 0, "offset": 24}
    return {
        "font": FONT,
        "background": surface,
        "view": {"stroke": None},
        "axis": {**axis, **words, "labelOverlap": True, "labelPadding": 4},
        "axisX": {"grid": False, "titleAnchor": "end", "domainColor": soft, "tickColor": soft},
        "axisY": {"domain": False, "ticks": False, **above},
        "legend": {**legend, **words, "symbolStrokeWidth": 2, "symbolOpacity": 1},
        "title": {"color": ink, "subtitleColor": soft, "fontSize": 15, "fontWeight": 600, "anchor": "start"},
        "range": {
            "category": [pair[number] for pair in PALETTE],
            "ordinal": LEVELS[theme],
            "heatmap": HEAT[theme],
        },
        "text": {"color": ink, "fontSize": 12},
        "rule": {"color": soft},
    }
