"""Pages from file, the network off: nothing missing, nothing cut, legible, at two widths."""

import re
from pathlib import Path

import pytest

from tests.browser.pages_of_a_report import write_report

pytestmark = pytest.mark.slow

# Contrast of each text with what lies behind it, by WCAG 2: the lowest ones of the page.
CONTRAST = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = (text.match(/[\\d.]+/g) || []).map(Number);
    return text.startsWith("color(srgb") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const light = (color) => {
    const [r, g, b] = color.slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color[3] > 0) layers.push(color);
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode()); ) {
    const element = node.parentElement;
    if (!node.textContent.trim() || element.closest("script, style, option")) continue;
    if (!element.checkVisibility()) continue;
    const under = behind(element), color = over(parse(getComputedStyle(element).color), under);
    const [a, b] = [light(color), light(under)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), node.textContent.trim().slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 5);
}"""

# Elements that reach beyond the window and cannot be scrolled to within their own box.
CUT = """() => [...document.querySelectorAll("main *, header *")].filter((element) => {
  const box = element.getBoundingClientRect();
  if (!box.width || box.right <= innerWidth + 1) return false;
  for (let at = element; at; at = at.parentElement)
    if (/auto|scroll/.test(getComputedStyle(at).overflowX)) return false;
  return true;
}).map((element) => `${element.tagName}.${element.className}`).slice(0, 5)"""

LOADED = "() => [...document.images].every((i) => i.naturalWidth || !i.checkVisibility())"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return write_report(tmp_path_factory.mktemp("report")).parent


@pytest.fixture(params=["index", "notebook", "failed"])
def page_file(request, report) -> Path:
    return {
        "index": report / "index.html",
        "notebook": report / "pages" / "tail.html",
        "failed": report / "pages" / "train-ekd-0.html",
    }[request.param]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_page_is_whole_and_legible_without_network(open_offline, page_file, width, scheme):
    page, alarms = open_offline(page_file, width=width, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    assert alarms.quiet(), (alarms.errors, alarms.requests)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT) == []
    page.wait_for_function(LOADED)
    lowest = page.evaluate(CONTRAST)
    assert lowest and lowest[0][0] >= 4.5, lowest
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == (scheme == "dark")


def test_a_bad_page_is_seen_to_be_one(open_offline, tmp_path):
    (tmp_path / "bad.html").write_text(
        '<main><p style="width: 2000px; color: #bbb; background: white">pale</p></main>'
        '<img src="gone.png"><script>nonsense()</script>'
    )
    page, alarms = open_offline(tmp_path / "bad.html", width=390)
    assert alarms.requests and any("nonsense" in text for text in alarms.errors)
    assert page.evaluate(CUT) == ["P."] and page.evaluate(CONTRAST)[0][0] < 2


def test_every_link_leads_somewhere_and_straight_to_the_failed_cell(open_offline, report):
    for path in (report / "index.html", report / "pages" / "tail.html"):
        page, _ = open_offline(path)
        links = page.eval_on_selector_all("a[href]", "all => all.map((a) => a.href)")
        assert links
        for link in links:
            target = Path(link.removeprefix("file://").partition("#")[0])
            assert target.exists(), link
    page, _ = open_offline(report / "index.html")
    page.click("a.state.failed")
    page.wait_for_selector("#papermill-error-cell")
    box = page.evaluate("document.querySelector('#papermill-error-cell').getBoundingClientRect().y")
    assert 0 <= box < 1000 and page.evaluate("scrollY") > 200


def test_filters_choose_by_state_parameter_and_words(open_offline, report):
    page, alarms = open_offline(report / "index.html")
    page.get_by_label("state").focus()
    for _ in range(4):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "words", "reached by keyboard"
    rows, told = "tr[data-node]:visible", "form.filters output"
    assert page.locator(rows).count() == 8
    page.get_by_label("method").select_option("ekd")
    assert page.locator(rows).count() == 2 and page.inner_text(told) == "2 of 8 notebooks"
    page.get_by_label("state").select_option("failed")
    assert page.locator(rows).count() == 1
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("document.querySelectorAll('tr[data-node]:not([hidden])').length === 8")
    page.get_by_label("words").fill("no such file")
    assert page.locator(rows).count() == 1
    page.get_by_label("words").fill("figure_1".replace("_", " "))
    assert page.locator("figure:visible").count() == 1
    page.get_by_label("words").fill("nothing has this word")
    assert page.locator(rows).count() == 0 and page.locator("figure:visible").count() == 0
    assert alarms.quiet()


def test_an_index_without_scripts_or_printed_shows_everything_and_no_filter(open_offline, report):
    page, alarms = open_offline(report / "index.html", java_script_enabled=False)
    assert page.locator("tr[data-node]").count() == 8
    assert not page.locator("form.filters").is_visible()
    assert page.locator("tr[data-node]").first.is_visible() and alarms.quiet()
    page, _ = open_offline(report / "index.html", width=680)  # what A4 holds
    page.emulate_media(media="print")
    assert page.locator("form.filters:visible").count() == 0
    wide = """() => [...document.querySelectorAll("table")].filter((t) => t.checkVisibility())
      .map((t) => t.getBoundingClientRect().right - document.body.clientWidth)
      .filter((over) => over > 1)"""
    assert page.evaluate(wide) == []
    after = "getComputedStyle(document.querySelector('tbody th a'), '::after').content"
    assert "pages/tail.html" in page.evaluate(after)
