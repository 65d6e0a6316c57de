"""Figures as SVG that stands in a page."""

import re
from importlib.resources import files
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from wardround.analytics.result import FigureExhibit
from wardround.report.figures import OKABE_ITO, svg_of

SVG = "{http://www.w3.org/2000/svg}"


def exhibit(draw):
    def figure():
        drawn = Figure(figsize=(4, 3))
        draw(drawn.subplots())
        return drawn

    return FigureExhibit(title="A title", draw=figure, description="What is to be seen.")


def svg(draw, prefix="f"):
    return svg_of(exhibit(draw), prefix)


def texts(text):
    return ["".join(element.itertext()) for element in ElementTree.fromstring(text).iter(f"{SVG}text")]


def test_equal_results_give_equal_svg():
    def draw(axes):
        axes.plot([1, 2], [3, 4], "o-")

    first = svg(draw)
    with mpl.rc_context({"font.size": 23, "svg.hashsalt": "other", "svg.fonttype": "path"}):
        assert svg(draw) == first
    assert not re.search(r"20\d\d-\d\d-\d\d", first)


def test_names_are_those_of_people():
    assert "max heart rate" in texts(svg(lambda axes: axes.set_title("max_heart_rate")))


@pytest.mark.parametrize("odd", ["\x07", "\x1b", "\ufffe"])
def test_characters_that_xml_does_not_know_are_replaced(odd):
    assert "a\N{REPLACEMENT CHARACTER}b" in texts(svg(lambda axes: axes.set_title(f"a{odd}b")))


def test_text_from_outside_is_no_mathematics():
    assert "$\\frac{$" in texts(svg(lambda axes: axes.set_title("$\\frac{$")))
    assert "$a$" in texts(svg(lambda axes: axes.set_yticks([0, 1], ["$a$", "b"])))


def test_powers_on_a_logarithmic_axis_are():
    def draw(axes):
        axes.plot([1, 1e5], [1, 2])
        axes.set_xscale("log")

    assert not any("mathdefault" in text for text in texts(svg(draw)))


def test_ids_begin_with_the_prefix_and_references_follow():
    def draw(axes):
        axes.plot([1, 2], [3, 4], "o-")

    root = ElementTree.fromstring(svg(draw, "figure7"))
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    assert ids
    assert all(name.startswith("figure7-") for name in ids)
    uses = [element.get("{http://www.w3.org/1999/xlink}href") for element in root.iter(f"{SVG}use")]
    assert uses
    assert {use[1:] for use in uses} <= ids


def test_it_is_described_for_those_who_cannot_see_it():
    root = ElementTree.fromstring(svg(lambda axes: None))
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", "f-title")
    assert root[0].tag == f"{SVG}title"
    assert root[0].text == "A title"
    assert root.get("aria-describedby") == root[1].get("id") == "f-desc"
    assert root[1].text == "What is to be seen."


@pytest.mark.parametrize(
    ("colour", "drawn"),
    [
        ("black", "stroke: currentColor;"),
        ("#1f2933", "stroke: currentColor;"),
        ("0.8", "stroke: currentColor; stroke-opacity: 0.20"),
        ("white", "stroke: var(--paper, #fff)"),
        ("#0072B2", "stroke: var(--c0, #0072b2)"),
        ("C1", "stroke: var(--c1, #d55e00)"),
        ("#123456", "stroke: #123456"),
    ],
)
def test_greys_are_the_pages_ink_and_the_palette_is_the_pages(colour, drawn):
    assert drawn in svg(lambda axes: axes.plot([1, 2], [3, 4], color=colour, linewidth=7))


def test_no_style_reaches_the_page_around_it():
    assert "<style" not in svg(lambda axes: None)


def test_what_matplotlib_cannot_measure_is_no_noise():
    """A warning would be an error here: a letter that its font lacks, a name that leaves no room."""
    drawn = svg(lambda axes: axes.set_title("\N{CJK UNIFIED IDEOGRAPH-75C5}"))
    assert "\N{CJK UNIFIED IDEOGRAPH-75C5}" in texts(drawn)

    def crowd(axes):
        axes.figure.set_layout_engine("constrained")
        axes.set_yticks([0], ["long " * 100])

    assert "long " * 100 in texts(svg(crowd))


@pytest.mark.parametrize(("colour", "drawn"), [("C0", "fill: var(--t0, #0072b2)"), ("0.5", "fill: currentColor;")])
def test_text_has_colours_of_its_own(colour, drawn):
    def draw(axes):
        axes.text(0.5, 0.5, "label", color=colour)

    (label,) = [e for e in ElementTree.fromstring(svg(draw)).iter(f"{SVG}text") if "".join(e.itertext()) == "label"]
    assert drawn in label.get("style") + ";"
    assert "opacity" not in label.get("style")


def test_the_page_knows_every_colour_of_the_palette():
    style = files("wardround.report").joinpath("report.css").read_text(encoding="utf-8")
    for number, colour in enumerate(OKABE_ITO):
        assert f"--c{number}: {colour.lower()};" in style
        assert style.count(f"--c{number}:") == style.count(f"--t{number}:") == 3  # light, dark, paper
