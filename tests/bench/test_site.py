"""The leaderboard's pages, as text and in a real browser."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsing import Page, browser, needs_browser
from support import ROOT

from bench.errors import BenchError
from bench.exchange.files import read_results
from bench.exchange.merge import merge_bundle
from bench.leaderboard.rank import boards
from bench.leaderboard.site.build import write_site
from bench.store import Store

HOSTILE = "<script>document.title='broken'</script>\"><img src=x onerror=\"document.title='broken'\">"


@pytest.fixture(scope="module")
def site(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boards with an entry of a hostile name, a suspect one and one that is not ranked."""
    store = Store(measured / "bench.sqlite")
    rows = [
        replace(row, defense=HOSTILE, verdict="suspect") if row.defense == "at" else row
        for row in store.cells()
        if not (row.defense == "vanilla" and row.attack == "pgd3" and row.eps == "1/10")
    ]
    folder = tmp_path_factory.mktemp("site") / "leaderboard"
    return write_site(boards(store, rows), store, folder, measured / "checkpoints", measured).parent


def test_the_folder_is_self_contained_and_its_links_lead_somewhere(site: Path) -> None:
    pages = [site / "index.html", *sorted((site / "entries").glob("*.html"))]
    assert len(pages) == 1 + 6
    for path in pages:
        page = Page(path)
        for tag, attributes in page.tags:
            for name in ("href", "src"):
                target = attributes.get(name)
                if target is None or target.startswith(("data:", "#")):
                    continue
                assert not re.match(r"\w+:|//", target), (tag, target)
                assert (path.parent / target).exists(), target
        policies = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv")]
        assert policies
        assert "default-src 'none'" in (policies[0] or "")
        assert not any(name.startswith("on") or name == "style" for _, a in page.tags for name in a)


def test_without_weights_and_at_one_budget_pages_say_no_more(tmp_path: Path) -> None:
    """And nothing of the machine: the same pages come out wherever the outcomes are."""
    pytest.importorskip("pyarrow")
    store = Store(tmp_path / "bench.sqlite")
    merge_bundle(store, read_results(ROOT / "results" / "cifar10-cnn-medium" / "outcomes.parquet"), note={})
    index = write_site(
        boards(store, store.cells(status="done")), store, tmp_path / "site", tmp_path / "nowhere", tmp_path / "no-data"
    )
    assert [t for t, a in Page(index).tags if t == "button" and "eps curve" in str(a)] == []
    assert "one budget" not in Page(index).text
    entries = sorted((index.parent / "entries").glob("*.html"))
    assert len(entries) == 4
    for entry in entries:
        assert "No pictures: the weights are not at hand." in Page(entry).text
        assert str(tmp_path) not in entry.read_text()


def test_hostile_names_are_text(site: Path) -> None:
    for path in (site / "index.html", *(site / "entries").glob("script*.html")):
        page = Page(path)
        assert HOSTILE in page.text
        assert [a.get("src") for t, a in page.tags if t == "script"] == [
            "script.js" if path.name == "index.html" else "../script.js"
        ]


def test_every_number_of_the_boards_is_on_the_page_and_in_the_data(site: Path, measured: Path) -> None:
    store = Store(measured / "bench.sqlite")
    text = Page(site / "index.html").text
    for board in boards(store, store.cells()):
        if board.eps == "1/5":
            for entry in board.entries:
                assert f"{100 * entry.worst.value:.1f}" in text
    assert (site / "data.csv").read_text().count("\n") == 1 + 6
    assert "unaudited" in Page(next((site / "entries").glob("nlif*"))).text.lower()


def test_writing_again_gives_the_same_bytes_and_replaces_nothing_of_others(
    measured: Path, site: Path, tmp_path: Path
) -> None:
    store = Store(measured / "bench.sqlite")
    found = boards(store, store.cells())
    one = write_site(found, store, tmp_path / "a").parent
    before = {path.relative_to(one): path.read_bytes() for path in one.rglob("*") if path.is_file()}
    again = write_site(found, store, tmp_path / "a").parent
    assert {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    with pytest.raises(BenchError, match="is not a leaderboard; choose another folder"):
        write_site(found, store, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years"


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_is_enough_in_light_and_dark(site: Path) -> None:
    """WCAG 2 AA: 4.5 to 1 for text."""
    blocks = re.findall(r":root[^{]*\{([^}]*--paper[^}]*)\}", (site / "style.css").read_text())
    assert len(blocks) == 3
    for block in blocks:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for ink in ("ink", "soft", "accent", "ok", "warn", "bad"):
            for ground in ("paper", "card"):
                bright, dim = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
                assert (bright + 0.05) / (dim + 0.05) >= 4.5, (ink, ground)
        # What can be pressed or typed into has an edge of 3 to 1.
        bright, dim = sorted((luminance(colours["edge"]), luminance(colours["card"])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 3


def test_a_board_says_what_it_shows_and_what_it_leaves_out(site: Path, measured: Path) -> None:
    store = Store(measured / "bench.sqlite")
    text = " ".join(Page(site / "index.html").text.split())
    assert re.search(r"leads with \d+\.\d% of the images, (but .* may be as robust|really more than)", text)
    assert "vanilla is not ranked: has not met pgd3" in text
    rows = [r for r in store.cells() if r.defense == "at" and r.eps == "1/5"]
    odd = [replace(r, verdict="invalid") if (r.attack, r.seed) == ("pgd3", 1) else r for r in rows]
    more = [r for r in store.cells() if r.defense == "vanilla" and r.eps == "1/5"]
    folder = write_site(boards(store, [*odd, *more]), store, site.parent / "odd").parent
    for path in (folder / "index.html", next((folder / "entries").glob("at-*"))):
        assert "pgd3 on seed 1 is invalid" in Page(path).text


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    driver = browser()
    yield driver
    driver.quit()


def rows(driver: Any, board: int = 0) -> list[str]:
    section = driver.find_elements("css selector", "section.board-section")[board]
    return [each.text for each in section.find_elements("css selector", "tbody th") if each.is_displayed()]


@needs_browser
def test_nothing_complains_and_nothing_hostile_runs(chrome: Any, site: Path) -> None:
    for path in (site / "index.html", *sorted((site / "entries").glob("*.html"))):
        chrome.get(path.as_uri())
        assert chrome.title != "broken"
        assert not chrome.get_log("browser")


@needs_browser
def test_sorting_by_click_and_by_keyboard(chrome: Any, site: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    chrome.get((site / "index.html").as_uri())
    board = chrome.find_element("css selector", "section.board-section")
    button = next(b for b in board.find_elements("css selector", "thead button") if b.text == "worst case")

    def values() -> list[float]:
        cells = board.find_elements("css selector", "tbody tr td[data-label='worst case']")
        return [float(cell.get_attribute("data-value")) for cell in cells]

    button.click()
    assert values() == sorted(values())
    head = button.find_element("xpath", "..")
    assert head.get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert values() == sorted(values(), reverse=True)
    assert head.get_attribute("aria-sort") == "descending"


@needs_browser
def test_filters(chrome: Any, site: Path) -> None:
    from selenium.webdriver.support.ui import Select

    chrome.get((site / "index.html").as_uri())
    text = chrome.find_element("id", "filter")
    text.send_keys("nlif")
    shown = [row for row in chrome.find_elements("css selector", "tbody tr") if row.is_displayed()]
    assert len(shown) == 2
    assert chrome.find_element("id", "count").text == "2 entries"
    text.send_keys("zzz")
    assert chrome.find_element("id", "nothing").is_displayed()
    chrome.get((site / "index.html").as_uri())
    chrome.find_element("id", "sound").click()
    assert not any("img" in row for row in rows(chrome))
    Select(chrome.find_element("id", "division")).select_by_value("stochastic")
    visible = [s for s in chrome.find_elements("css selector", "section.board-section") if s.is_displayed()]
    assert {section.get_attribute("data-division") for section in visible} == {"stochastic"}


@needs_browser
def test_the_curve_opens_by_hover_click_and_keyboard_and_escape_closes_it(chrome: Any, site: Path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    chrome.get((site / "index.html").as_uri())
    curve = next(c for c in chrome.find_elements("css selector", ".curve") if c.is_displayed())
    button, pop = (curve.find_element("css selector", name) for name in ("button", ".pop"))
    assert not pop.is_displayed()
    ActionChains(chrome).move_to_element(button).perform()
    assert pop.is_displayed()
    ActionChains(chrome).move_to_element(chrome.find_element("css selector", "h1")).perform()
    assert not pop.is_displayed()
    button.send_keys(Keys.ENTER)
    assert pop.is_displayed()
    assert button.get_attribute("aria-expanded") == "true"
    button.send_keys(Keys.ESCAPE)
    assert not pop.is_displayed()
    assert button.get_attribute("aria-expanded") == "false"


@needs_browser
def test_an_entry_has_its_page_and_its_command_can_be_taken(chrome: Any, site: Path) -> None:
    chrome.get((site / "index.html").as_uri())
    link = next(a for a in chrome.find_elements("css selector", "tbody th a") if a.text == "nlif")
    link.click()
    assert "nlif" in chrome.title
    chrome.find_element("css selector", "button.copy").click()
    chosen = chrome.execute_script("return getSelection().toString()")
    assert chosen.startswith("bench run -d nlif")
    assert len(chrome.find_elements("css selector", "table")) >= 2


@needs_browser
@pytest.mark.parametrize("width", [360, 768, 1400])
def test_no_page_scrolls_sideways(chrome: Any, site: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for path in (site / "index.html", *sorted((site / "entries").glob("*.html"))[:2]):
        chrome.get(path.as_uri())
        widths = chrome.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1] == width, path.name
    chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_browser
def test_without_room_for_a_table_entries_are_cards_that_can_be_sorted(chrome: Any, site: Path) -> None:
    from selenium.webdriver.support.ui import Select

    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chrome.get((site / "index.html").as_uri())
    assert not chrome.find_element("css selector", "thead").is_displayed()
    names = rows(chrome)
    Select(chrome.find_element("id", "sort")).select_by_visible_text("defense")
    assert rows(chrome) == sorted(names, key=str.lower) or rows(chrome) == sorted(names)
    # Screen readers still find a table.
    nodes = chrome.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = [node["role"]["value"] for node in nodes if not node.get("ignored")]
    assert roles.count("rowheader") == 6
    chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chrome.get((site / "index.html").as_uri())
    assert not chrome.find_element("id", "sort").is_displayed()


@needs_browser
def test_the_mouse_can_reach_the_curve_and_the_keyboard_all_there_is(chrome: Any, site: Path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    chrome.get((site / "index.html").as_uri())
    curve = next(c for c in chrome.find_elements("css selector", ".curve") if c.is_displayed())
    button, pop = (curve.find_element("css selector", name) for name in ("button", ".pop"))
    ActionChains(chrome).move_to_element(button).perform()
    ActionChains(chrome).move_to_element(pop.find_element("css selector", "svg")).perform()
    assert pop.is_displayed()
    assert button.get_attribute("aria-label").startswith("eps curve of ")
    chrome.get((site / "index.html").as_uri())
    reached = []
    for _ in range(200):
        chrome.switch_to.active_element.send_keys(Keys.TAB)
        active = chrome.switch_to.active_element
        if active.tag_name == "body":
            break
        assert active.is_displayed()
        reached.append(active.id)
    wanted = [e.id for e in chrome.find_elements("css selector", "a, button, input, select") if e.is_displayed()]
    assert set(wanted) <= set(reached)


@needs_browser
def test_the_filter_knows_the_boards_and_not_the_drawings(chrome: Any, site: Path) -> None:
    chrome.get((site / "index.html").as_uri())
    text, count = chrome.find_element("id", "filter"), chrome.find_element("id", "count")
    text.send_keys("stochastic eps 0.2")
    assert count.text == "1 entry"
    text.clear()
    text.send_keys("accuracy in")
    assert count.text == "0 entries"


@needs_browser
def test_paper_is_light(chrome: Any, site: Path) -> None:
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    chrome.get((site / "index.html").as_uri())
    ink = chrome.execute_script("return getComputedStyle(document.body).color")
    shown = chrome.find_element("css selector", ".controls").is_displayed()
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert ink == "rgb(28, 29, 32)"
    assert not shown


@needs_browser
def test_light_or_dark_is_remembered(chrome: Any, site: Path) -> None:
    chrome.get((site / "index.html").as_uri())

    def ground() -> str:
        return str(chrome.execute_script("return getComputedStyle(document.body).backgroundColor"))

    before = ground()
    chrome.find_element("css selector", ".theme").click()
    after = ground()
    assert after != before
    chrome.get((site / "index.html").as_uri())
    assert ground() == after
    chrome.find_element("css selector", ".theme").click()
    assert ground() == before


@needs_browser
def test_without_scripts_the_ranking_is_there(site: Path) -> None:
    driver = browser(scripts=False)
    try:
        driver.get((site / "index.html").as_uri())
        assert len(driver.find_elements("css selector", "tbody tr")) == 6
        assert not any(c.is_displayed() for c in driver.find_elements("css selector", ".controls, .curve, .theme"))
        assert driver.find_element("css selector", "tbody th").is_displayed()
    finally:
        driver.quit()
