"""The documentation as a site: it builds without a warning, and nothing in it leads nowhere or comes from elsewhere."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from browsing import Page, browser, needs_browser
from support import ROOT, environment

from bench.registry import ATTACKS, DEFENSES

NEEDED = ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers", "latex2mathml")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED), reason="the extra docs is not installed"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = environment() | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_links_lead_somewhere_and_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    anchors = {
        path: {value for _, given in page.tags for name in ("id", "name") if (value := given.get(name))}
        for path, page in pages.items()
    }
    links = 0
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for tag, given in page.tags:
            for name in ("href", "src"):
                target = given.get(name)
                if target is None or target.startswith(("data:", "javascript:")):
                    continue
                if re.match(r"[\w+.-]+:|//", target):
                    assert tag == "a", (path.name, target)
                    continue
                file, _, anchor = target.partition("#")
                there = (path.parent / unquote(file)).resolve() if file else path
                there = there / "index.html" if there.is_dir() else there
                assert there.exists(), (path.name, target)
                if anchor and there in anchors:
                    assert unquote(anchor) in anchors[there], (path.name, target)
                links += 1
    assert links > 1000
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text()), style.name


def test_every_defense_and_attack_has_its_page_with_a_drawn_formula(site: Path) -> None:
    for kind, registry in (("defenses", DEFENSES), ("attacks", ATTACKS)):
        listed = (site / "parts" / kind / "index.html").read_text()
        for name in registry.names():
            if registry.entry(name).builtin:
                html = (site / "parts" / kind / f"{name}.html").read_text()
                assert '<div class="formula"><math' in html, name
                assert f'href="{name}.html"' in listed


def test_every_page_of_the_folder_and_every_measurement_is_there(site: Path) -> None:
    for path in (ROOT / "docs").glob("*.md"):
        assert (site / f"{path.stem}.html").exists()
    for path in (ROOT / "results").glob("*/README.md"):
        assert (site / "measured" / f"{path.parent.name}.html").exists()
    assert (site / "measured" / "index.html").exists()
    assert (site / "measured" / "leaderboard-findings.html").exists()
    assert (site / "measured" / "leaderboard" / "digits-eps.svg").exists()


def test_formulas_are_drawn_and_shapes_are_no_emphasis(pages: dict[Path, Page]) -> None:
    for path in pages:
        prose = re.sub(r"<(code|script)\b.*?</\1>", "", path.read_text(), flags=re.DOTALL)
        assert "arithmatex" not in prose
        assert not re.search(r"\\\(|\\\[|\$\$", prose), path.name
    reference = next(path for path in pages if path.match("reference/attacks.html"))
    assert "[N, *]" in pages[reference].text
    # The label of a parameter without a default, and not what stood between two asterisks of shapes.
    assert set(re.findall(r"<em>(.*?)</em>", reference.read_text(), re.DOTALL)) <= {"required"}


def test_getting_started_shows_the_readme_s_own_numbers(pages: dict[Path, Page]) -> None:
    readme = (ROOT / "README.md").read_text()
    start = " ".join(next(page.text for path, page in pages.items() if path.name == "start.html").split())
    shown = re.search(r"<!-- output: run -->\n```text\n(.*?)```", readme, re.DOTALL)
    assert shown
    assert " ".join(shown[1].split()) in start
    # What the guide explains is what the run printed.
    guide = (ROOT / "docs" / "start.md").read_text()
    for line in re.findall(r"^ (?:tgo|  +robust).*$", guide, re.MULTILINE):
        assert line.strip() in shown[1]


def test_the_search_index_can_be_read_from_a_folder(site: Path) -> None:
    script = (site / "search" / "search_index.js").read_text()
    assert script.startswith("var __index = ")
    found = {entry["location"] for entry in json.loads(script.removeprefix("var __index = "))["docs"]}
    assert "parts/defenses/tgo.html" in found


@needs_browser
def test_in_a_browser_the_search_works_nothing_complains_and_no_page_scrolls_sideways(site: Path) -> None:
    chrome = browser()
    try:
        for width in (390, 1400):
            metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            for name in ("index", "start", "audit", "pitfalls", "parts/attacks/apgd", "reference/commands"):
                chrome.get((site / f"{name}.html").as_uri())
                widths = chrome.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
                assert widths[0] <= widths[1], (name, width)
                assert not chrome.get_log("browser"), name
        chrome.get((site / "index.html").as_uri())
        field = chrome.find_element("css selector", "input.md-search__input")
        field.click()
        field.send_keys("threshold")
        from selenium.webdriver.support.ui import WebDriverWait

        def results(driver: object) -> list[object]:
            return list(chrome.find_elements("css selector", ".md-search-result__item"))

        assert WebDriverWait(chrome, 20).until(results)
    finally:
        chrome.quit()
