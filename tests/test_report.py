"""The report: complete, self-contained, escaped, the same bytes each time; then in a browser, where there is one."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from planted import plant_all
from reported import ENTRIES, EXHIBITS, FINDINGS, HOSTILE, Page, frames, world

from analysis.__main__ import main
from analysis.ledger import Entry
from analysis.load import records
from analysis.report import site, words
from analysis.report.site import World, gathered, write
from paper_tables.spec import load, names
from tests.make_targets import makes, needs_make

RESULTS = Path(__file__).resolve().parent.parent / "results"
LIMIT = 300_000  # bytes of index.html
CUT = (Path(__file__).parent / "cut.js").read_text()
PAGES = ("index.html", "claims.html", "errata.html")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the small world, figures included."""
    folder = tmp_path_factory.mktemp("planted")
    return write(world(folder / "records"), folder / "site").parent


@pytest.fixture(scope="module")
def everything() -> World:
    return gathered("laptop", {"logged": records(RESULTS / "laptop"), "yours": []})


@pytest.fixture(scope="module")
def real(everything: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of everything on file, with frames for figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "drawn", frames)
        return write(everything, tmp_path_factory.mktemp("real")).parent


@pytest.fixture(params=["planted", "real"])
def built(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


@cache
def pages(folder: Path) -> list[Page]:
    return [Page(path) for path in sorted(folder.rglob("*.html"))]


def test_every_exhibit_has_its_page_and_the_index_leads_to_it(built: Path, everything: World) -> None:
    exhibits = everything.exhibits if len(pages(built)) > 20 else EXHIBITS
    linked = {link["href"] for link in Page(built / "index.html").all("a")}
    expected = {words.page(exhibit.name) for exhibit in exhibits}
    assert expected <= linked
    assert {f"exhibits/{path.name}" for path in (built / "exhibits").iterdir()} == expected


def test_every_address_is_there(built: Path) -> None:
    """Nothing is loaded from elsewhere; every link, fragment included, leads to something."""
    by_path = {page.path.resolve(): page for page in pages(built)}
    lost = []
    for page in by_path.values():
        for address in page.addresses:
            name, _, fragment = address.partition("#")
            target = (page.path.parent / name).resolve() if name else page.path.resolve()
            assert not re.match(r"[a-z]+:|//", address), f"{page.path.name} loads {address}"
            if not target.is_file() or (fragment and fragment not in by_path[target].ids):
                lost.append((page.path.name, address))
    assert lost == []


def test_style_and_script_fetch_nothing(built: Path) -> None:
    style, script = ((built / name).read_text() for name in site.PLAIN)
    assert re.findall(r"@import|url\(|https?:", style) == []
    assert re.findall(r"fetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon|https?:", script) == []


def test_the_index_is_small(real: Path) -> None:
    assert (real / "index.html").stat().st_size < LIMIT


def test_pages_are_well_formed_and_have_what_a_screen_reader_needs(built: Path) -> None:
    for page in pages(built):
        name = page.path.name
        assert len(page.ids) == len(set(page.ids)), f"{name} has an id twice"
        assert page.captions == len(page.all("table")), f"{name} has a table without a caption"
        assert all(head.get("scope") for head in page.all("th")), f"{name} has a header cell without its scope"
        assert all(image.get("alt") and int(image["width"]) > 100 for image in page.all("img")), name
        assert [heading for heading, _ in page.tags].count("h1") == 1 and page.all("html")[0]["lang"] == "en"
        assert [len(page.all(landmark)) for landmark in ("main", "footer")] == [1, 1]
        named = {label["for"] for label in page.all("label")}
        assert {control["id"] for tag in ("input", "select") for control in page.all(tag)} == named, name


def test_headings_step_down_one_level_at_a_time(built: Path) -> None:
    for page in pages(built):
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
        assert levels[0] == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), page.path.name


def test_the_same_world_gives_the_same_bytes(planted: Path, tmp_path: Path) -> None:
    again = write(world(tmp_path / "records"), tmp_path / "site").parent
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (planted, again)
    )
    assert first.keys() == second.keys() and first == second
    assert sum(path.suffix == ".svg" for path in first) == 2  # the two that have a plot


def test_what_is_gone_leaves_no_page(tmp_path: Path) -> None:
    whole = world(tmp_path / "records")
    write(whole, tmp_path / "site")
    write(World("laptop", EXHIBITS[2:], [], [], whole.records), tmp_path / "site")
    kept = [words.identity(exhibit) for exhibit in EXHIBITS[2:]]
    assert sorted(path.stem for path in (tmp_path / "site" / "exhibits").iterdir()) == sorted(kept)
    assert list((tmp_path / "site" / "figures").iterdir()) == []


def words_of(page: Page) -> str:
    return " ".join(page.text.split())


def test_verdicts_are_counted_by_paper_and_side(planted: Path) -> None:
    text = words_of(Page(planted / "index.html"))
    # fails, inconclusive, waiting, untested, holds
    assert re.search(r"RS-KD Sparse Logit \S.*? published 0 1 0 1 2 logged 1 1 0 1 1 TAD", text)
    assert re.search(r"TAD .*? published 1 0 0 0 0 logged 0 0 0 1 0 SE-KD", text)
    assert re.search(r"SE-KD .*? published 0 0 0 0 1 logged 0 0 0 1 0 yours 0 0 0 0 1", text)
    assert re.search(r"All published 1 1 0 1 3 logged 1 1 0 3 1 yours 0 0 0 0 1", text)


def test_what_failed_stands_on_the_first_screen_with_its_numbers(planted: Path) -> None:
    text = words_of(Page(planted / "index.html"))
    assert text.index("Failed on our runs 1") < text.index("The sky is green.") < text.index("wrong on ours.")
    assert (
        text.index("Failed on the papers’ own numbers 1")
        < text.index("hostile as printed.")
        < text.index("Exhibits Search")
    )


def test_a_claim_stands_with_both_verdicts(planted: Path) -> None:
    for name in ("exhibits/rskd-table01.html", "claims.html"):
        text = words_of(Page(planted / name))
        assert "published holds wrong as printed. logged fails wrong on ours." in text
        assert text.index("wrong on ours.") < text.index("open on ours.") < text.index("right on ours.")
    assert "Nobody looked. Section 9" in words_of(Page(planted / "claims.html"))


@pytest.mark.parametrize("name", [name for name in names() if load(name).reprints])
def test_a_reprint_leads_to_the_verdicts_of_its_exhibit(real: Path, everything: World, name: str) -> None:
    there = load(name).reprints
    page = Page(real / words.page(name))
    assert f"../{words.page(there)}#claims" in {link["href"] for link in page.all("a")}
    text, called = words_of(page), words.called(there)
    assert f"reprint: judged where the paper prints it Paper: {load(name).where}" in text
    assert f"Verdicts of {called} ({there}): logged " in text and f"ours judged in {called}" in text
    assert text.count(f"; judged on our runs in {called}") == len(load(name).claims)
    assert [entry.ours for entry in everything.entries if entry.exhibit == name] == [{}] * len(load(name).claims)


def test_no_text_of_an_exhibit_becomes_markup(planted: Path) -> None:
    for page in pages(planted):
        assert all("src" in script for script in page.all("script")) and HOSTILE not in page.path.read_text()
    page = Page(planted / "exhibits" / "tad-table02.html")
    assert page.text.count(HOSTILE) >= 10 and page.tags.count(("code", {})) >= 2


def table_lines(page: Page, caption: str) -> list[str]:
    """The text of a table, line by line, from its caption on."""
    after = re.sub(r"[ \t]+", " ", page.text[page.text.index(caption) :])
    return [line.strip() for line in after.splitlines() if line.strip()]


def test_numbers_stand_as_printed_with_the_papers_marks(planted: Path) -> None:
    page = Page(planted / "exhibits" / "sekd-table03.html")
    assert table_lines(page, "as published")[1:11] == [
        *("Quantity", "Small", "Large"),
        *("Loss\u00a0↓", "2.80 (best)", "2.9 (sd 0.10) (second)"),
        *("Size", "300M"),
        "↔ what does not fit scrolls sideways",
        "Bold: the best, as the paper marks it. Underlined: the paper’s second mark. "
        "↓ lower is better, ↑ higher is better.",
    ]
    crossed = table_lines(Page(planted / "exhibits" / "salt-table04.html"), "as published")
    assert crossed[1:10] == ["Method", "3", "4", "1", "1.3", "1.4", "2", "2.3", "2.4"]


MADE = (
    "source abc numerics 1 of every part precision float32 teacher 7eac4e corpus stdlib (c0ffee) "
    "hardware machine x86_64, cores 2 time not recorded"
)


def test_ours_stands_beside_the_published_number_with_its_runs(planted: Path) -> None:
    page = Page(planted / "exhibits" / "rskd-table01.html")
    lines = table_lines(page, "published beside ours")
    at = lines.index("Top-K 12")
    assert lines[at + 1 : at + 3] == ["2.87", "4.093 ± 0.100 (3)"]
    at = lines.index("FullKD")
    assert lines[at + 1 : at + 4] == ["2.75", "3.460 ± 0.025 (3)", "3.500 (1)"]
    text = words_of(page)
    assert "4 yours FullKD all defaults 0 fullkd-s0" in text
    assert "2 logged Top-K 12 target TopK(k=12) 0 top-k-12-s0 1 top-k-12-s1 2 top-k-12-s2 commit not recorded" in text
    assert MADE in text
    assert "File paper_tables/rskd/table01.toml; make table-1 shows it, make replicate-table-1 runs it" in text
    assert "see make test" in text


@needs_make
def test_the_commands_on_the_pages_exist(everything: World) -> None:
    for exhibit in everything.exhibits:
        for command in words.commands(exhibit):
            program, target, *_ = command.split()
            assert makes(target) if program == "make" else command.endswith(exhibit.name), command


def test_figures_say_what_is_seen(planted: Path) -> None:
    image = Page(planted / "exhibits" / "rskd-table01.html").all("img")[0]
    assert "Rows: CE, Top-K 12, FullKD. Voices: published, logged, yours." in image["alt"]
    assert (planted / "exhibits" / image["src"]).read_text().startswith("<svg")
    assert Page(planted / "exhibits" / "sekd-table03.html").all("img") == []


def test_errata_are_grouped_worst_first_and_counted(planted: Path) -> None:
    text = words_of(Page(planted / "errata.html"))
    assert "RS-KD 1 1 0 1 TAD 0 0 0 0 SE-KD 0 0 1 1 SALT 0 0 0 0 All 1 1 1 2" in text
    assert "RS-KD Table 1 CE / lm_loss contradictory 2.80 0.6 0.5 to 0.75 mean(of contradictory)" in text
    assert text.index("mean(of contradictory)") < text.index("RS-KD, text") < text.index("1 consistent in the text")
    assert "Consistent: SE-KD Table 3 (1)." in text
    assert "mean(of consistent)" in words_of(Page(planted / "exhibits" / "sekd-table03.html"))


def test_exhibits_of_our_own_have_no_published_side(tmp_path: Path) -> None:
    own = EXHIBITS[0].model_copy(update={"paper": "ours", "plot": {}})
    entries = [Entry("ours", "ours/table01", e.claim, e.published, e.ours) for e in ENTRIES[:3]]
    both = World("laptop", [EXHIBITS[2], own], [*entries, ENTRIES[-1]], [], {"logged": [], "yours": []})
    assert "This suite What the papers did not measure logged 1 1 0 0 1" in words_of(Page(write(both, tmp_path)))
    of_claims = words_of(Page(tmp_path / "claims.html"))
    assert "published" not in of_claims[of_claims.index("What the papers did not measure") :]


def test_the_search_knows_rows_columns_and_claims(planted: Path) -> None:
    text = (planted / "search.js").read_text()
    found = json.loads(text.removeprefix("window.reportTexts = ").rstrip(";\n"))
    assert all(word in found["rskd-table01"] for word in ("top-k 12", "lm loss", "the sky is green."))
    assert set(found) == {words.identity(exhibit) for exhibit in EXHIBITS}


def test_the_command_writes_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_all(tmp_path / "results" / "smoke")

    def small(scale: str, found: dict[str, Any]) -> World:
        assert scale == "smoke" and len(found["logged"]) == 9 and found["yours"] == []
        return World(scale, EXHIBITS[2:], [], FINDINGS, found)

    monkeypatch.setattr(site, "gathered", small)
    given = ["--scale", "smoke", "--results", str(tmp_path / "results"), "--build", str(tmp_path / "build")]
    assert main(["report", *given]) == 0
    assert "at scale smoke" in (tmp_path / "build" / "report" / "index.html").read_text()


# In Chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium. Where there is none these tests are skipped, and say so."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        lacking = "the report is not tested in a browser: install chromium and chromedriver (Debian: chromium-driver)"
        warnings.warn(lacking, stacklevel=1)
        pytest.skip(lacking)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    started.set_script_timeout(120)  # its own 30 seconds are short for the longest page on a busy machine
    yield started
    started.quit()


def look(browser: Any, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    preferred = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    media = {"features": [{"name": name, "value": value} for name, value in preferred.items()]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def visit(browser: Any, page: Path, fragment: str = "", width: int = 1280, scheme: str = "light") -> None:
    look(browser, width, scheme)
    browser.get("about:blank")  # else a new fragment of the same page loads nothing
    browser.get(page.as_uri() + fragment)


def shown(browser: Any, selector: str = ".item") -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility()).map((e) => e.id)"
    found: list[str] = browser.execute_script(script, selector)
    return found


def violations(browser: Any, page: Path, scheme: str) -> list[str]:
    visit(browser, page, scheme=scheme)
    browser.execute_script((files("axe_core_python") / "axe.min.js").read_text())
    script = "axe.run(document, {resultTypes: ['violations']}).then((found) => arguments[0](found.violations))"
    found = browser.execute_async_script(script)
    serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    return [f"{rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in serious]


def chosen(browser: Any, **fields: str) -> list[str]:
    """What is shown after these fields of the form have been filled."""
    script = """for (const [name, value] of Object.entries(arguments[0])) {
      const field = document.querySelector("form.filter").elements[name];
      field.value = value; field.dispatchEvent(new Event("input", {bubbles: true})); }"""
    browser.execute_script(script, fields)
    return shown(browser)


def test_pages_open_without_a_complaint_or_a_request(browser: Any, real: Path, planted: Path) -> None:
    browser.get_log("browser"), browser.get_log("performance")
    for folder in (real, planted):
        for name in (*PAGES, "exhibits/rskd-table01.html"):
            visit(browser, folder / name)
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert len(urls) > 8 and [url for url in urls if not url.startswith(("file://", "data:"))] == []


def test_every_exhibit_is_one_click_away(browser: Any, real: Path, everything: World) -> None:
    visit(browser, real / "index.html")
    assert sorted(shown(browser)) == sorted(words.identity(exhibit) for exhibit in everything.exhibits)
    for id in (words.identity(everything.exhibits[0]), words.identity(everything.exhibits[-1])):
        visit(browser, real / "index.html")
        link = browser.find_element("css selector", f"#{id} a")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", link)
        link.click()
        assert browser.current_url.endswith(f"/exhibits/{id}.html") and browser.find_element("tag name", "h1").text


def test_search_and_filters(browser: Any, planted: Path) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    visit(browser, planted / "index.html")
    assert len(shown(browser)) == len(EXHIBITS)
    assert chosen(browser, q="GREEN sky") == ["rskd-table01"]  # a claim's words, in any order and case
    assert browser.find_element("css selector", ".found").text == "1 of 4"
    assert chosen(browser, q="no such thing") == [] and shown(browser, ".group") == []
    assert chosen(browser, q="", paper="sekd") == ["sekd-table03"]
    assert chosen(browser, paper="", verdict="ours:fails") == ["rskd-table01"]
    assert chosen(browser, verdict="published:fails") == ["tad-table02"]
    assert chosen(browser, verdict="", status="runnable") == ["salt-table04"]
    assert "#status=runnable" in browser.current_url
    browser.find_element("css selector", "button[type=reset]").click()
    # a form is emptied after it has said that it will be, and the page looks at it after that
    WebDriverWait(browser, 20).until(lambda _: len(shown(browser)) == len(EXHIBITS))


def test_a_search_goes_on_among_the_claims(browser: Any, planted: Path) -> None:
    visit(browser, planted / "index.html")
    chosen(browser, q="green", paper="rskd")
    browser.find_element("css selector", ".elsewhere a").click()
    assert shown(browser) == ["rskd-table01--wrong"]
    assert browser.find_element("id", "q").get_attribute("value") == "green"
    assert chosen(browser, q="", verdict="ours:untested") == ["rskd-said--unseen"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*PAGES, "exhibits/rskd-table01.html", "exhibits/tad-table02.html"])
def test_no_serious_fault_of_accessibility(browser: Any, planted: Path, name: str, scheme: str) -> None:
    assert violations(browser, planted / name, scheme) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "errata.html", "exhibits/rskd-table02.html"])
def test_no_serious_fault_on_the_real_pages(browser: Any, real: Path, name: str, scheme: str) -> None:
    assert violations(browser, real / name, scheme) == []


def test_faults_of_accessibility_are_seen(browser: Any, planted: Path, tmp_path: Path) -> None:
    style = "<style>:root { --quiet: #ccc !important; }</style>"
    broken = re.sub(r' alt="[^"]*"', "", (planted / "exhibits" / "rskd-table01.html").read_text())
    shutil.copytree(planted, tmp_path / "site")
    page = tmp_path / "site" / "exhibits" / "rskd-table01.html"
    page.write_text(broken.replace("</head>", f"{style}</head>"))
    assert {rule.partition(":")[0] for rule in violations(browser, page, "light")} == {"image-alt", "color-contrast"}


def test_the_keyboard_reaches_the_content_and_the_search(browser: Any, real: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    def focused() -> Any:
        return browser.switch_to.active_element

    visit(browser, real / "index.html")
    focused().send_keys(Keys.TAB)
    assert focused().get_attribute("class") == "skip" and focused().rect["y"] >= 0
    focused().send_keys(Keys.ENTER)
    assert focused().get_attribute("id") == "main"
    for _ in range(60):
        focused().send_keys(Keys.TAB)
        if focused().get_attribute("id") == "q":
            break
    assert focused().get_attribute("id") == "q"
    focused().send_keys("top-k 12")
    assert 0 < len(shown(browser)) < 60


def cut(browser: Any, page: Path) -> set[str]:
    """What of the page is cut on a desk, on half of one and on a phone; folds are open."""
    visit(browser, page)
    browser.execute_script("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    found = set()
    for width, scheme in ((1400, "light"), (900, "dark"), (375, "light")):
        look(browser, width, scheme)
        found |= {f"{page.stem} at {width}, {fault}" for fault in browser.execute_async_script(CUT)}
    return found


def test_nothing_is_cut_at_any_width(browser: Any, built: Path) -> None:
    """Of every page: tables that do not fit scroll and say so, figures shrink, nothing else is wider than its place."""
    assert set().union(*(cut(browser, page.path) for page in pages(built))) == set()


def test_the_dark_scheme_changes_colours_alone() -> None:
    """So what fits in the one fits in the other."""
    style = files("analysis.report").joinpath("report.css").read_text()
    dark = re.findall(r"@media \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}\s*\}", style, re.S)
    assert len(dark) == style.count("prefers-color-scheme") == 1
    assert re.fullmatch(r"(\s*--[a-z-]+: #[0-9a-f]{6};)+\s*", dark[0])


@pytest.mark.parametrize(
    ("slip", "fault"),
    [
        ("figure img { max-width: none !important; }", "wider than its frame: <img>"),
        (".hint { display: none !important; }", "scrolls and does not say so: <div>"),
        (".hint { display: block !important; }", "says that it scrolls and does not: <div>"),
        (".scroll { overflow-x: hidden !important; }", "cut without a scrollbar: <div>"),
        (".tally td { padding: 3rem !important; }", "the page is"),
        (".lede { width: 80rem; }", "beyond the window: <p>"),
        (".header { width: 10rem; white-space: nowrap; }", "wider than its box: <ul>"),
        (".scroll caption span { max-width: none !important; width: 200rem; }", "wider than its frame: <span"),
    ],
)
def test_what_is_cut_is_seen(browser: Any, planted: Path, tmp_path: Path, slip: str, fault: str) -> None:
    shutil.copytree(planted, tmp_path / "site")
    with (tmp_path / "site" / "report.css").open("a") as style:
        style.write(slip)
    pages = [tmp_path / "site" / name for name in ("index.html", "errata.html", "exhibits/rskd-table01.html")]
    assert any(fault in found for page in pages for found in cut(browser, page))


@pytest.mark.parametrize("name", [*PAGES, "exhibits/rskd-table02.html"])
def test_a_narrow_screen_scrolls_one_way_only(browser: Any, real: Path, name: str) -> None:
    visit(browser, real / name, width=320)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 320


def test_without_scripts_everything_is_there(browser: Any, planted: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        visit(browser, planted / "index.html")
        assert not browser.find_element("css selector", "form.filter").is_displayed()
        assert all(item.is_displayed() for item in browser.find_elements("css selector", ".item"))
        visit(browser, planted / "exhibits" / "rskd-table01.html")
        hints = browser.find_elements("css selector", ".hint")
        assert hints and all(hint.is_displayed() for hint in hints)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
