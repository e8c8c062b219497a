"""Figures as files, drawn without a browser."""

from collections.abc import Iterable
from pathlib import Path

import vl_convert

from edm2core.report.figures.figure import Figure
from edm2core.words import printable

OFFLINE: list[str] = []  # addresses that a drawing may load from: none


def as_svg(figure: Figure) -> str:
    """The figure with its title and caption."""
    return str(vl_convert.vegalite_to_svg(printable(figure.drawing()), allowed_base_urls=OFFLINE))


def as_pdf(figure: Figure) -> bytes:
    """The drawing alone, for a paper that sets the caption itself."""
    return bytes(vl_convert.vegalite_to_pdf(printable(figure.drawing(words=False)), allowed_base_urls=OFFLINE))


def write_figures(figures: Iterable[Figure], folder: Path) -> list[Path]:
    """Write every figure as SVG, PDF and CSV, and figures.tex, which includes them all with their captions; returns where they are.

    Of a figure that shows one training at a time, each training has its drawing, at the first of the figure's epochs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {}
    included = []
    for figure in figures:
        files[f"{figure.id}.csv"] = printable(figure.as_csv()).encode()
        for name, drawn in _each(figure).items():
            files |= {f"{name}.svg": as_svg(drawn).encode(), f"{name}.pdf": as_pdf(drawn)}
            included.append(_included(name, drawn))
    files["figures.tex"] = printable("\n".join(["% needs \\usepackage{graphicx}", *included])).encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def _each(figure: Figure) -> dict[str, Figure]:
    """The figure for each training that it can show, by the name of its file."""
    trainings = figure.choices.get("training", ())
    if len(trainings) < 2:
        return {figure.id: figure}
    drawn = [(number, figure.showing(training=training)) for number, training in enumerate(trainings)]
    return {f"{figure.id}-{number}": each for number, each in drawn if each.shown}


def _included(name: str, figure: Figure) -> str:
    chosen = "".join(f", {column} {values[0]}" for column, values in figure.choices.items())
    words = escaped(f"{figure.title}{chosen}. {figure.caption}")
    return (
        f"\\begin{{figure}}\n  \\centering\n  \\includegraphics{{{name}.pdf}}\n  \\caption{{{words}}}\n"
        f"  \\label{{fig:{name}}}\n\\end{{figure}}\n"
    )


SIGNS = {
    **{sign: f"\\{sign}" for sign in "{}&%$#_"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": "$\\pm$",
    "·": "$\\cdot$",
    "×": "$\\times$",
    "‖": "$\\|$",
    "Δ": "$\\Delta$",
    "σ": "$\\sigma$",
    "λ": "$\\lambda$",
    "−": "$-$",
}


def escaped(text: str) -> str:
    """Text for LaTeX."""
    return "".join(SIGNS.get(sign, sign) for sign in text)
