"""A figure as one SVG element that stands in an HTML page: deterministic, readable on light and dark."""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from wardround.analytics.result import FigureExhibit
from wardround.errors import ConfigError
from wardround.report.tables import plain_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#888888")
"""Colours that the colour-blind tell apart (Okabe and Ito 2008, https://jfly.uni-koeln.de/color/); grey for black."""

_INK = "#010203"
"""A near black: the page's text colour, once the SVG is written."""
_GREYNESS = 24
"""Largest difference between the red, green and blue of a grey (of 255)."""
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_TEXT = (f"{{{_SVG}}}text", f"{{{_SVG}}}tspan")
_PALETTE = {colour[1:].lower(): number for number, colour in enumerate(OKABE_ITO)}
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# Characters that a name may hold and XML may not.
_COLOUR = re.compile(r"\b(fill|stroke): #([0-9a-fA-F]{6})\b")


def svg_of(exhibit: FigureExhibit, prefix: str) -> str:
    """The figure of an exhibit.

    Colours of the palette become the page's `--c0`, `--c1`, ... (`--t0`, ... in text, which needs more contrast), greys
    shares of its ink: the page decides how they look on light and dark.

    Args:
        exhibit: draws the figure, and tells what it shows to those who cannot see it.
        prefix: begins every id in the SVG, so that several can stand in one page.

    Raises:
        ConfigError: matplotlib is not installed.

    Guarantees:
        equal_results_give_equal_svg: no date, random id or machine's setting is in it.
    """
    try:
        import matplotlib.style
        from cycler import cycler
    except ModuleNotFoundError:
        raise ConfigError("figures need matplotlib; install it with: pip install 'wardround[report]'") from None

    buffer = io.StringIO()
    with matplotlib.style.context(["default", _settings(cycler(color=OKABE_ITO))]), warnings.catch_warnings():
        # Of letters that matplotlib's own font lacks, which the reader's browser has, and of names too long for it.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"matplotlib|wardround\.report")
        figure = exhibit.draw()
        _let_powers_be_mathematics(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_a_page(buffer.getvalue(), exhibit, prefix)


def _settings(colours: Any) -> Any:
    """What matplotlib is set to while a figure is drawn."""
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    clear = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "wardround",
        "text.parse_math": False,  # a site may be called "$x"
        "font.size": 10,
        "axes.prop_cycle": colours,
        **dict.fromkeys(inked, _INK),
        **dict.fromkeys(clear, "none"),
    }


def _let_powers_be_mathematics(figure: Figure) -> None:
    """Ticks of a logarithmic axis are formulas that matplotlib wrote, not text from outside."""
    from matplotlib.ticker import LogFormatterMathtext

    formatted = [
        (formatter, get_labels)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for formatter, get_labels in (
            (axis.get_major_formatter(), axis.get_majorticklabels),
            (axis.get_minor_formatter(), axis.get_minorticklabels),
        )
    ]
    mathematical = [pair for pair in formatted if isinstance(pair[0], LogFormatterMathtext)]
    if mathematical:
        figure.draw_without_rendering()  # makes the ticks
    for _, get_labels in mathematical:
        for label in get_labels():
            label.set_parse_math(True)


def _for_a_page(svg: str, exhibit: FigureExhibit, prefix: str) -> str:
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(_NO_XML.sub("\N{REPLACEMENT CHARACTER}", svg))  # noqa: S314  # matplotlib wrote it
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):  # a style would be the whole page's
                parent.remove(child)
    for element in root.iter():
        if element.tag in _TEXT:
            element.text = plain_names(element.text or "")
        paint = _text_on_any_page if element.tag in _TEXT else _on_any_page
        for name, value in element.attrib.items():
            element.set(name, _COLOUR.sub(paint, _prefixed(name, value, prefix)))
    _describe(root, exhibit, prefix)
    return ElementTree.tostring(root, encoding="unicode")


def _on_any_page(match: re.Match[str]) -> str:
    """Greys as shares of the page's ink, so that they are seen on light and dark alike; colours as they are."""
    if match[2].lower() in _PALETTE:
        return f"{match[1]}: var(--c{_PALETTE[match[2].lower()]}, #{match[2]})"
    what, red, green, blue = match[1], *(int(match[2][i : i + 2], 16) for i in (0, 2, 4))
    if max(red, green, blue) - min(red, green, blue) > _GREYNESS:
        return match[0]
    ink = 1 - (red + green + blue) / (3 * 255)
    if ink == 0:
        return f"{what}: var(--paper, #fff)"
    return f"{what}: currentColor" if ink > 0.75 else f"{what}: currentColor; {what}-opacity: {ink:.2f}"


def _text_on_any_page(match: re.Match[str]) -> str:
    """Text in a colour of the palette as the page has it for text, in any grey as the page's ink."""
    if match[2].lower() in _PALETTE:
        return f"{match[1]}: var(--t{_PALETTE[match[2].lower()]}, #{match[2]})"
    return re.sub(r"; \w+-opacity: .*", "", _on_any_page(match))


def _prefixed(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == f"{{{_XLINK}}}href" and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    return value.replace("url(#", f"url(#{prefix}-")


def _describe(root: Any, exhibit: FigureExhibit, prefix: str) -> None:
    # The page's width decides, not the figure's: the viewBox keeps its proportions.
    width = root.attrib.pop("width", "")
    root.attrib.pop("height", None)
    points = float(width.removesuffix("pt") or 0)
    root.set("style", f"max-width: {points * 4 / 3:.0f}px; width: 100%; height: auto")
    root.set("fill", "currentColor")
    root.set("stroke-linejoin", "round")
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title")
    root.set("aria-describedby", f"{prefix}-desc")
    for place, (tag, text) in enumerate([("title", exhibit.title), ("desc", exhibit.description)]):
        element = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{prefix}-{tag}"})
        element.text = text
        root.insert(place, element)
