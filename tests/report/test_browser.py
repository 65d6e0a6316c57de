"""The report in a real browser: at several widths, in the dark, on paper, by keyboard, by the accessibility tree."""

import os

import pytest

from tests.report.conftest import BROWSER, needs_browser
from wardround.report.html import write_report

pytestmark = needs_browser
WIDTHS = (320, 390, 768, 1280)
SMALL_TEXT, LARGE_TEXT = 4.5, 3.0
# Least contrast of text by WCAG 2.2, 1.4.3 (AA).


@pytest.fixture(scope="module")
def address(everything, tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "report.html"
    write_report(everything, path)
    return path.as_uri()


@pytest.fixture(scope="module")
def short_address(outcome, tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "report.html"
    write_report(outcome, path)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (the extra dev)")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # the sandbox refuses root
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=str(BROWSER), args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def opened(browser, address):
    """Open the report; what it asks of the network and says on the console is looked at in the end."""
    contexts, requests, said = [], [], []
    opened_ones = set()

    def open_(width=1280, height=900, at=address, **more):
        context = browser.new_context(viewport={"width": width, "height": height}, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        opened_ones.add(at)
        page.goto(at)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert set(requests) == opened_ones
    assert said == []


def unfold(page):
    page.evaluate("document.querySelectorAll('main details').forEach(one => one.open = true)")


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_or_overlaps(opened, width):
    page = opened(width)
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE, width) == []
    assert page.evaluate(OVERLAPPING) == []


# Boxes with text of their own that reach over the window and stand in nothing that scrolls.
OUTSIDE = """width => [...document.querySelectorAll('body *')].filter(one => {
    const text = [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!text || one.closest('.scroll, .skip, style') || !one.getClientRects().length) return false;
    return [...one.getClientRects()].some(box => box.left < -0.5 || box.right > width + 0.5);
}).map(one => one.outerHTML.slice(0, 80))"""

# Parts of the page that follow each other and yet share some height, and labels of a figure that cover each other.
OVERLAPPING = """() => {
    const found = [];
    for (const parent of document.querySelectorAll('main, section, header, .exhibit')) {
        const all = [...parent.children].map(one => [one, one.getBoundingClientRect()]);
        const boxes = all.filter(([, box]) => box.height);
        boxes.slice(1).forEach(([one, box], i) => {
            if (box.top < boxes[i][1].bottom - 1) found.push(one.outerHTML.slice(0, 80));
        });
    }
    for (const figure of document.querySelectorAll('figure svg')) {
        const labels = [...figure.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()]);
        labels.forEach(([text, a], i) => labels.slice(i + 1).forEach(([other, b]) => {
            const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
            const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            if (wide > 2 && high > 3) found.push(`${figure.id} ${text} | ${other}`);
        }));
    }
    return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(opened, scheme):
    page = opened(color_scheme=scheme)
    unfold(page)
    shown = page.evaluate(CONTRASTS)
    assert len(shown) > 200
    weak = [one for one in shown if one["ratio"] < (LARGE_TEXT if one["is_large"] else SMALL_TEXT)]
    assert weak == []
    is_dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 27)"
    assert is_dark == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_colours_of_figures_have_contrast(opened, scheme):
    """Of graphics, WCAG 2.2 wants 3 to 1 (1.4.11); later colours are told apart by line and marker as well."""
    page = opened(color_scheme=scheme)
    page.evaluate("document.body.innerHTML = '<p>x</p><p>x</p><p>x</p>'")
    for number in range(3):
        page.evaluate("n => document.querySelectorAll('p')[n].style.color = `var(--c${n})`", number)
    assert all(one["ratio"] >= 3 for one in page.evaluate(CONTRASTS))


CONTRASTS = """() => {
    const parse = colour => { const c = colour.match(/[\\d.]+/g).map(Number); return c.length < 4 ? [...c, 1] : c; };
    const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3]));
    const light = rgb => rgb.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const paper = one => {
        const layers = [];
        for (; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
        return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
    };
    return [...document.querySelectorAll('body *')].filter(one =>
        [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())
        && one.getClientRects().length && !one.closest('.skip, title, desc, style')
    ).map(one => {
        const style = getComputedStyle(one), behind = paper(one);
        const ink = over(parse(one.closest('svg') ? style.fill : style.color), behind);
        const [a, b] = [light(ink), light(behind)];
        const size = parseFloat(style.fontSize);
        return {
            text: one.textContent.trim().slice(0, 40),
            ratio: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05),
            is_large: size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700),
        };
    });
}"""


def test_tables_that_do_not_fit_are_reached_and_moved_by_keyboard(opened, short_address):
    page = opened(390, at=short_address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "glance"
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        now = page.evaluate(FOCUSED)
        if now["outline"] == "none" or now["name"] is None:
            break
        if now["name"] in reached and now["name"].startswith("table"):
            break
        reached.add(now["name"])
        if now["overflows"]:
            page.keyboard.press("ArrowRight")
            assert any(page.evaluate(MOVED) for _ in range(40))
    else:
        pytest.fail("the keyboard does not get through the page")
    scrolling = "[...document.querySelectorAll('.scroll')].filter(one => one.checkVisibility())"
    wanted = page.evaluate(f"{scrolling}.map(one => one.parentElement.id)")
    assert set(wanted) <= reached
    assert {"table-1", "figure-1"} <= set(wanted)


MOVED = "new Promise(resolve => setTimeout(() => resolve(document.activeElement.scrollLeft > 0), 50))"
FOCUSED = """() => {
    const one = document.activeElement;
    if (one === document.body) return {name: null, outline: 'none', overflows: false};
    return {
        name: one.classList.contains('scroll') ? one.parentElement.id : one.textContent.slice(0, 60),
        outline: getComputedStyle(one).outlineStyle,
        overflows: one.classList.contains('scroll') && one.scrollWidth > one.clientWidth,
    };
}"""


def test_the_accessibility_tree_tells_what_is_seen(opened):
    tree = opened().locator("body").aria_snapshot()
    for expected in (
        "- banner:",
        "- main:",
        '- navigation "Contents"',
        "- contentinfo:",
        '- heading "At a glance" [level=2]',
        '- heading "2. Deaths" [level=2]',
        '- region "Table 1. Characteristics of the patients, by ward"',
        '- table "Table 1. Characteristics of the patients, by ward"',
        '- columnheader "All"',
        '- rowheader "mean (SD)"',
        "- figure",
        '- img "Odds ratios for died, with 95% confidence intervals"',
        '- link "Reference 1"',
        "- strong: No result.",
    ):
        assert expected in tree, expected
    assert tree.count('navigation "Contents"') == 1


def test_what_is_seen_of_a_figure_is_told(opened):
    page = opened()
    image = page.get_by_role("img", name="Odds ratios for died, with 95% confidence intervals")
    description = image.evaluate("one => document.getElementById(one.getAttribute('aria-describedby')).textContent")
    assert description.startswith("Died: odds ratio (95% CI) of ")


def test_contents_are_folded_where_there_is_no_room(opened):
    narrow = opened(390)
    contents = narrow.get_by_role("navigation", name="Contents")
    assert contents.count() == 1
    assert not contents.get_by_role("link").first.is_visible()
    contents.locator("summary").click()
    contents.get_by_role("link", name="Methods").click()
    assert narrow.evaluate("document.querySelector('#methods').getBoundingClientRect().top") < 200
    wide = opened(1280)
    beside = wide.get_by_role("navigation", name="Contents")
    wide.evaluate("window.scrollTo(0, 3000)")
    assert beside.get_by_role("link", name="Methods").is_visible()
    assert wide.evaluate("document.querySelector('nav.beside').getBoundingClientRect().top") == 0


def test_paper_shows_everything_and_cuts_nothing(opened):
    page = opened(680)  # A4 less its margins
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    folded = (
        "[...document.querySelectorAll('main details > :not(summary)')].map(one => one.getBoundingClientRect().height)"
    )
    assert all(height > 20 for height in page.evaluate(folded))
    assert page.get_by_role("navigation", name="Contents").count() == 1
    wide = "[...document.querySelectorAll('.exhibit:not(.turned) table')].map(one => one.getBoundingClientRect().right)"
    assert all(right <= 681 for right in page.evaluate(wide))
    page.set_viewport_size({"width": 1000, "height": 680})  # wide tables are printed on turned pages
    turned = page.evaluate(
        "[...document.querySelectorAll('.turned table')].map(one => one.getBoundingClientRect().right)"
    )
    assert turned
    assert all(right <= 1001 for right in turned)


def test_letters_may_be_twice_as_large(opened):
    """WCAG 2.2, 1.4.4: no text is lost at 200%."""
    page = opened(1280)
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert page.evaluate(OUTSIDE, 1280) == []
