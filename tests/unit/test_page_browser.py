"""The page in a real browser without a network: it draws, switches, sorts, filters, saves and prints."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from test_report import rendered, synthetic_inputs

from xlift.report.contents import build_tables
from xlift.report.figures import TEXTS
from xlift.report.inputs import ReportInputs

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")

HOSTILE = '<script>window.hit = 1</script><img src="x" onerror="window.hit = 1">'
DRAWN = f"() => document.querySelectorAll('.drawing.drawn > .live svg.marks').length === {len(TEXTS)}"
SHOWN = "rows => rows.filter(row => !row.hidden)"
FOCUS = "() => [document.activeElement.className, getComputedStyle(document.activeElement).left]"


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    """A study with markup in its name, a language's name and a note."""
    made = synthetic_inputs(name=f"trial {HOSTILE}")
    languages = dict(made.languages)
    languages["sw"] = dataclasses.replace(languages["sw"], name=HOSTILE)
    contrasts = made.contrasts.with_columns(note=pl.lit(f'a note, "quoted" {HOSTILE}'))
    return dataclasses.replace(made, languages=languages, contrasts=contrasts)


@dataclasses.dataclass
class Visit:
    """The page as it is open in the browser, and all it asked for and complained of."""

    tab: Any
    url: str
    asked: list[str] = dataclasses.field(default_factory=list)
    said: list[str] = dataclasses.field(default_factory=list)

    def drawing(self, key: str) -> str:
        """The drawn figure as markup."""
        return str(self.tab.inner_html(f"#live-{key}"))

    def rows(self, name: str, column: int) -> list[str]:
        """The text of a column in the rows that are shown."""
        cells = f"rows => ({SHOWN})(rows).map(row => row.cells[{column}].textContent)"
        return list(self.tab.eval_on_selector_all(f"#table-{name} tbody tr", cells))

    def exact(self, name: str, column: int) -> list[float | None]:
        """What a column's cells sort by, in the rows that are shown."""
        cells = f"rows => ({SHOWN})(rows).map(row => row.cells[{column}].getAttribute('data-sort'))"
        found = self.tab.eval_on_selector_all(f"#table-{name} tbody tr", cells)
        return [float(value) if value else None for value in found]

    def saved(self, button: str) -> Path:
        """The file that a button saves."""
        self.tab.wait_for_timeout(120)  # Chromium saves ten files a second and drops others
        with self.tab.expect_download() as download:
            self.tab.click(button)
        return Path(download.value.path())


@pytest.fixture(scope="module")
def visit(inputs: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    page = tmp_path_factory.mktemp("page") / "index.html"
    page.write_text(rendered(inputs), encoding="utf-8")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # root cannot have one
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, color_scheme="light")
        context.set_default_timeout(240_000)  # of milliseconds: a busy machine is no fault
        found = Visit(context.new_page(), page.as_uri())
        found.tab.on("request", lambda request: found.asked.append(request.url))
        found.tab.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
        found.tab.on("pageerror", lambda error: found.said.append(str(error)))
        found.tab.goto(found.url)
        found.tab.wait_for_function(DRAWN)
        found.tab.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true; })")
        yield found
        browser.close()


def test_first_tab_stop_skips_to_the_answer(visit: Visit) -> None:
    visit.tab.keyboard.press("Tab")
    name, left = visit.tab.evaluate(FOCUS)
    assert name == "skip"
    assert not left.startswith("-")


def test_text_of_the_study_is_text(visit: Visit) -> None:
    assert visit.tab.evaluate("() => window.hit === undefined")
    assert f"{HOSTILE} (sw)" in visit.rows("languages", 0)
    assert visit.tab.title() == f"trial {HOSTILE} – xlift"


def test_target_changes_figures_and_tables(visit: Visit, inputs: ReportInputs) -> None:
    before = {key: visit.drawing(key) for key in TEXTS}
    assert set(visit.rows("heat", 1)) == {"all targets (mean)"}
    visit.tab.select_option("#target", "cldr_tags")
    visit.tab.wait_for_function("old => document.getElementById('live-heat').innerHTML !== old", arg=before["heat"])
    visit.tab.wait_for_function("old => document.getElementById('live-slope').innerHTML !== old", arg=before["slope"])
    for name in ("heat", "slope", "languages"):
        assert set(visit.rows(name, 1)) == {"cldr_tags"}
    assert visit.drawing("strata") == before["strata"]
    visit.tab.select_option("#target", "")
    visit.tab.wait_for_function("old => document.getElementById('live-heat').innerHTML === old", arg=before["heat"])


def test_sorting_by_mouse_and_by_keyboard(visit: Visit) -> None:
    head = "#table-languages thead th:nth-child(6)"  # baseline score
    visit.tab.click(f"{head} button")
    assert visit.tab.get_attribute(head, "aria-sort") == "ascending"
    scores = [score for score in visit.exact("languages", 5) if score is not None]
    assert len(scores) == 49
    assert scores == sorted(scores)
    visit.tab.focus(f"{head} button")
    visit.tab.keyboard.press("Enter")
    assert visit.tab.get_attribute(head, "aria-sort") == "descending"
    assert visit.exact("languages", 5) == sorted(scores, reverse=True)
    sizes = "#table-languages thead th:nth-child(4)"
    visit.tab.focus(f"{sizes} button")
    visit.tab.keyboard.press("Space")
    assert visit.tab.get_attribute(head, "aria-sort") is None
    assert visit.exact("languages", 3)[-1] is None  # unseen languages have no size and stand last
    assert visit.exact("languages", 3)[0] == min(size for size in visit.exact("languages", 3) if size is not None)


def test_filter_by_name_code_and_stratum(visit: Visit) -> None:
    assert visit.tab.inner_text("#shown") == "49 of 49 languages"
    visit.tab.fill("#filter", "GERM")
    assert visit.rows("languages", 0) == ["German (de)"]
    assert visit.tab.inner_text("#shown") == "1 of 49 languages"
    visit.tab.fill("#filter", "(yo)")
    assert visit.rows("languages", 0) == ["Yoruba (yo)"]
    visit.tab.fill("#filter", "")
    visit.tab.select_option("#stratum", "low")
    assert set(visit.rows("languages", 2)) == {"low"}
    visit.tab.select_option("#target", "cldr_names")
    assert set(visit.rows("languages", 1)) == {"cldr_names"}
    assert set(visit.rows("languages", 2)) == {"low"}
    visit.tab.select_option("#stratum", "")
    visit.tab.select_option("#target", "")
    assert len(visit.rows("languages", 0)) == 49


def test_csv_of_every_table_is_the_table(visit: Visit, inputs: ReportInputs) -> None:
    visit.tab.fill("#filter", "german")  # a download is of all rows
    for name, table in build_tables(inputs).items():
        expected = table.data
        if not table.rows:
            assert visit.tab.locator(f"#table-{name}").count() == 0
            continue
        path = visit.saved(f"button[data-table={name}]")
        found = pl.read_csv(path, schema=expected.schema)
        assert_frame_equal(found, expected, check_row_order=name != "languages")  # which was sorted above
    visit.tab.fill("#filter", "")


def test_figures_are_saved_in_the_light_theme_with_their_target(visit: Visit) -> None:
    visit.tab.select_option("#target", "cldr_pairs")
    svg = visit.saved("button[data-figure=heat][data-format=svg]").read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert TEXTS["heat"].title in svg
    assert "cldr_pairs" in svg
    assert visit.saved("button[data-figure=slope][data-format=png]").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    spec = json.loads(visit.saved("button[data-figure=slope][data-format=json]").read_text(encoding="utf-8"))
    assert spec["params"] == [{"name": "target", "value": "cldr_pairs"}]
    assert spec["config"]["background"] == "white"
    visit.tab.select_option("#target", "")


def test_copy_selects_where_the_clipboard_is_not_to_be_had(visit: Visit) -> None:
    visit.tab.evaluate("() => Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
    visit.tab.click("button[data-copy=bibtex]")
    assert visit.tab.inner_text("button[data-copy=bibtex] + span").startswith("Selected")
    selected = visit.tab.evaluate("() => window.getSelection().toString()")
    assert "@inproceedings{phang2020," in selected


def test_dark_theme_is_drawn_anew(visit: Visit) -> None:
    assert "#1f2328" in visit.drawing("slope")
    visit.tab.emulate_media(color_scheme="dark")
    drawn = "() => document.getElementById('live-slope').innerHTML.includes('#e6edf3')"
    visit.tab.wait_for_function(drawn)
    background = visit.tab.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(21, 25, 30)"
    visit.tab.emulate_media(color_scheme="light")
    visit.tab.wait_for_function(drawn.replace("#e6edf3", "#1f2328"))


def test_a_phone_needs_no_sideways_scrolling(visit: Visit) -> None:
    visit.tab.set_viewport_size({"width": 390, "height": 844})
    widths = visit.tab.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1] == 390
    visit.tab.set_viewport_size({"width": 1280, "height": 900})


def test_print_shows_the_static_figures(visit: Visit) -> None:
    visit.tab.emulate_media(media="print")
    shown = "all => all.map(each => getComputedStyle(each).display)"
    assert set(visit.tab.eval_on_selector_all(".live", shown)) == {"none"}
    assert set(visit.tab.eval_on_selector_all(".static", shown)) == {"block"}
    assert set(visit.tab.eval_on_selector_all(".downloads, nav", shown)) == {"none"}
    assert visit.tab.pdf()[:5] == b"%PDF-"
    visit.tab.emulate_media(media="screen")


def test_nothing_was_asked_for_and_nothing_went_wrong(visit: Visit) -> None:
    """Last: over all that the other tests did."""
    assert [url for url in visit.asked if not url.startswith(("data:", "blob:"))] == [visit.url]
    assert visit.said == []
