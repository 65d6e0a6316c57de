"""The report: complete, self-contained, and nobody's text becomes markup."""

import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

import wardround as wr
from tests.report.conftest import carried_out
from wardround.data.report import ContractReport, Violation
from wardround.errors import ConfigError, StoreError
from wardround.privacy.disclosure import DisclosureRules
from wardround.report.html import check_can_report, render_report, write_report
from wardround.report.outcome import DataReading, Failure

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}$\\frac{$"


class Page(HTMLParser):
    """What is on a page, by element; fails on elements that do not match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.ids, self.text, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(outcome):
    return Page(render_report(outcome))


def test_it_tells_everything(page, outcome):
    text = re.sub(r"\s+", " ", " ".join(page.text))
    for expected in (
        "Wards",
        "Who dies?",
        "North",
        "South",
        "160",
        "Mortality",
        "Workflow glm, version 1",
        "died ~ age + C(sex)",
        "Odds ratio (95% CI)",
        "sex: m",
        "Numbers sent",
        "Counts of levels by group, with the counts of missing values.",
        "glm.terms@1",
        "Counts of people or records from 1 to 4 are hidden",
        "McCullagh P, Nelder JA.",
        "numpy",
        "Simulated",
        outcome.analyses[1].facts.run_id,
    ):
        assert expected in text


def test_needs_nothing_else(page):
    assert page.all("script") == page.all("link") == page.all("img") == page.all("iframe") == []
    for _, attributes in page.elements:
        for name in ("src", "srcset", "data", "action", "formaction", "background"):
            assert name not in attributes
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none'")


def test_no_style_makes_a_request(outcome):
    text = render_report(outcome)
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_everything_is_escaped():
    hostile = carried_out(
        sites=(HOSTILE, "South"),
        level=HOSTILE,
        name=HOSTILE,
        question=HOSTILE,
        title=HOSTILE,
        study={"purpose": HOSTILE},
    )
    text = render_report(replace(hostile, versions={**hostile.versions, HOSTILE: HOSTILE}))
    page = Page(text)
    assert page.all("script") == page.all("img") == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "<script" not in text
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", text)[0]  # the template language is not run on it
    shown = "".join(page.text)
    assert shown.count(HOSTILE) >= 6


def test_failures_and_absences_are_escaped(outcome):
    first, second = outcome.analyses
    broken = replace(second, result=Failure("ModelError", HOSTILE), facts=None)
    absent = replace(first, facts=replace(first.facts, failures={HOSTILE: HOSTILE}))
    page = Page(render_report(replace(outcome, analyses=(absent, broken))))
    assert page.all("script") == page.all("img") == []
    assert "".join(page.text).count(HOSTILE) == 3


def test_how_tables_were_read_is_told_and_escaped(outcome):
    violation = Violation.counted(HOSTILE, "out of range", 30)
    misfit = ContractReport(site="South", shown_records="80", violations=(violation,), are_made_missing=True)
    notes = (HOSTILE, *(f"note {i}" for i in range(60)))
    page = Page(
        render_report(
            replace(outcome, reading=DataReading(is_inferred=True, notes=notes, misfits=(misfit,)), date="2026-11-23")
        )
    )
    text = "".join(page.text)
    assert page.all("script") == page.all("img") == []
    assert text.count(HOSTILE) == 2 - (repr(HOSTILE) != f"'{HOSTILE}'")  # a column's name is quoted
    assert "South (80 records)" in text
    assert "out of range in 30 rows" in text
    assert "and 21 more, which the JSON holds" in text
    assert "2026-11-23" in text


def test_hospitals_that_tighten_the_rules_are_named():
    outcome = carried_out(site_disclosure={"South": DisclosureRules.of("nhs", minimum_cell=20)})
    text = " ".join("".join(Page(render_report(outcome)).text).split())
    assert re.search(r"South \(nhs \(changed\) and standard: minimum cell 20, [\w ,]*rounding 5\)\.", text)
    assert "Counts of people or records from 1 to 19 are hidden" in text


def test_equal_outcomes_give_equal_reports(outcome):
    assert render_report(outcome) == render_report(outcome)


def test_ids_are_unique_and_references_lead_somewhere(page):
    assert len(page.ids) == len(set(page.ids))
    for tag, attributes in page.elements:
        for name in ("href", "xlink:href"):
            if name in attributes:
                assert attributes[name][1:] in page.ids, tag
        for value in attributes.values():
            for reference in re.findall(r"url\(#([^)]*)\)", value or ""):
                assert reference in page.ids


def test_it_can_be_read_without_seeing_it(page):
    assert page.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row", "rowgroup") for attributes in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    for attributes in page.all("svg"):
        assert attributes["role"] == "img"
        assert attributes["aria-labelledby"] in page.ids
        assert attributes["aria-describedby"] in page.ids
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, page.ids[0]) in page.ids
    for landmark in ("main", "header", "footer"):
        assert len(page.all(landmark)) == 1
    assert len(page.all("nav")) == 2  # beside the text, and folded where there is no room; one is shown at a time


def test_whatever_may_be_too_wide_is_reached_by_keyboard_and_has_a_name(page):
    """Chromium lets the keyboard into what scrolls by itself; other browsers do not."""
    boxes = [attributes for tag, attributes in page.elements if attributes.get("class") == "scroll"]
    assert len(boxes) == len(page.all("table")) + len(page.all("figure"))
    for attributes in boxes:
        assert attributes["tabindex"] == "0"
        assert attributes["role"] in ("region", "group")
        assert attributes.get("aria-label") or attributes["aria-labelledby"] in page.ids


def test_tables_and_figures_are_counted_over_the_whole_report(page):
    captions = re.findall(r"(?:Table|Figure) \d+\.", " ".join(page.text))
    assert sorted(captions) == ["Figure 1.", "Figure 2.", "Table 1.", "Table 2.", "Table 3."]


def test_every_reference_is_cited(page):
    cited = {attributes["href"] for attributes in page.all("a") if attributes["href"].startswith("#ref-")}
    assert cited == {f"#{name}" for name in page.ids if name.startswith("ref-")}
    assert len(cited) >= 5


def test_many_sites_are_folded_away():
    page = Page(render_report(carried_out(sites=[f"Site {i}" for i in range(30)])))
    assert "All 30 hospitals" in "".join(page.text)


def test_sites_that_were_absent_are_named():
    script = [wr.Event(site="South", behaviour="drops_before", round=2)]
    outcome = carried_out(sites=("North", "South", "West"), minimum_sites=2, script=script)
    text = " ".join("".join(Page(render_report(outcome)).text).split())
    assert "South was absent from round" in text


def test_where_a_report_cannot_be_written(tmp_path, outcome, monkeypatch):
    with pytest.raises(ConfigError, match="is a folder; name a file in it"):
        check_can_report(tmp_path)
    with pytest.raises(ConfigError, match="there is no folder"):
        write_report(outcome, tmp_path / "none" / "report.html")
    monkeypatch.setattr("wardround.report.html.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs jinja2 and matplotlib.*pip install 'wardround\[report\]'"):
        check_can_report(tmp_path / "report.html")


def test_it_is_written_as_utf_8(tmp_path, outcome):
    write_report(outcome, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes().decode("utf-8") == render_report(outcome)


def test_only_a_page_is_replaced(tmp_path, outcome):
    path = tmp_path / "report.html"
    path.touch()
    write_report(outcome, path)
    write_report(outcome, path)
    table, pipe, link = tmp_path / "north.csv", tmp_path / "pipe.html", tmp_path / "link.html"
    table.write_text("age\n1\n")
    os.mkfifo(pipe)
    link.symlink_to(table)
    for other in (table, pipe, link, Path("/dev/null")):
        with pytest.raises(ConfigError, match="exists and is no report; name another file"):
            write_report(outcome, other)
    assert table.read_text() == "age\n1\n"


def test_a_report_that_cannot_be_written_is_told(tmp_path, outcome, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", fail)
    with pytest.raises(StoreError, match=r"report\.html cannot be written \(No space left on device\)"):
        write_report(outcome, tmp_path / "report.html")


def test_names_of_any_length_and_alphabet_leave_room_for_the_figure():
    outcome = carried_out(level="\N{CJK UNIFIED IDEOGRAPH-75C5}" * 200)
    page = render_report(outcome)
    (svg,) = re.findall(r"<svg.*?</svg>", page, re.DOTALL)[:1]
    assert "\N{CJK UNIFIED IDEOGRAPH-75C5}" * 41 not in svg
    assert "\N{CJK UNIFIED IDEOGRAPH-75C5}" * 200 in page
