"""A study's page and its Markdown: whole, escaped, the same each time, and in a browser as it is meant to be used."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt

from alexlab.report.content import MEANINGS, PlotOnPage
from alexlab.report.figures.effects import ForestRow, forest
from alexlab.report.figures.learning import curves
from alexlab.report.figures.saving import save
from alexlab.report.html import page
from alexlab.report.markdown import markdown
from alexlab.report.write import write
from alexlab.study.claims import Verdict, read_claims
from alexlab.study.judge import judge
from alexlab.study.judgement import Judgement
from alexlab.study.plans import read_looks
from alexlab.study.records import Archive, read_archive
from support.studies import made_study

ODD = """
- id: odd
  section: "3.3"
  statement: '<script>alert("no")</script> a|b & "c" *d*'
  against: [ablation=no_lrn]
  published: {top1_error: -1.4, top5_error: -1.2}
  recipes: [imagenet128]
  differs: [model.lrn]
  authors: '<b>x|y</b>'
- {id: level, section: "6", statement: A level., is_level: true, published: {top1_error: 40.7}, recipes: [imagenet128]}
- {id: ratio, section: "4.2", statement: A ratio., against: [ablation=no_dropout], metric: epochs, ratio: true,
   published: {epochs: 2.0}, recipes: [imagenet128]}
- {id: views, section: "6", statement: Ten views., against_view: center, published: {top1_error: -1.5},
   recipes: [imagenet128]}
- {id: colours, section: "6.1", statement: Colours., against: [ablation=ungrouped], metric: colour_gap,
   direction: higher, recipes: [imagenet128], smallest_effect: 0.1, smallest_effect_reason: so}
- {id: never, section: "6", statement: Not here., not_testable: no records tell}
"""
VOID = {"meta", "link", "input", "br", "wbr", "hr", "img"}
PLOT = PlotOnPage(
    "A <plot>", "Text & more|", '<svg viewBox="0 0 9 9"><path d="M0 0L9 9" stroke="currentColor"/></svg>', "a.png"
)


@dataclass
class Made:
    """A study's plan, with the claims above, and the records of all its runs."""

    plan: dict[str, Any]
    archive: Archive

    def judged(
        self, recipe: str = "demo", without: tuple[int, ...] = (), claims: bool = True, begun: bool = True
    ) -> Judgement:
        """By all records but those of some seeds."""
        dropped = {arm["runs"][str(seed)] for arm in self.plan["arms"] for seed in without}
        runs = {name: run for name, run in self.archive.runs.items() if name not in dropped}
        plan = {**self.plan, "recipe": recipe}
        plan.update({} if claims else {"claims": []}, **({} if begun else {"digest": None}))
        return judge([plan], dataclasses.replace(self.archive, runs=runs, problems=[]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    line = ["study=paper", "study.claims=[paper/lrn,paper/dropout,paper/colour_towers]"]
    study = made_study(
        folder,
        [*line, "study.seeds=3", "study.base_seeds=3"],
        {"no_lrn": 0.42, "ungrouped": 0.9},
        run_sd=0.0005,
        images=2000,
        failed={"no_dropout": 1},
        environment={"no_lrn": {"git_commit": "fedcba9876543210"}},
    )
    (folder / "odd.yaml").write_text(ODD)
    claims = [dataclasses.asdict(claim) for claim in read_claims(folder / "odd.yaml")]
    [plan] = read_looks(folder / "studies" / f"{study.id}.json")
    return Made({**plan, "claims": claims}, read_archive([folder]))


class Page(HTMLParser):
    """Elements as they are nested, and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(name)) is not None]

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


def test_a_page_is_whole_and_needs_nothing_else(made: Made, tmp_path: Path):
    judgement = made.judged(without=(0,))
    plots = []
    for name in ("one", "two"):
        save(curves({"a|b": np.ones((2, 3)), "c": np.zeros((1, 3))}, "loss"), tmp_path / name)
        plots.append(PlotOnPage(name, "A plot.", (tmp_path / f"{name}.svg").read_text(), f"{name}.png"))
    text = page(judgement, plots)
    parsed = Page(text)
    assert not parsed.open
    assert "svg" in {tag for tag, _ in parsed.elements}
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    addresses = [*parsed.values("href"), *parsed.values("src"), *parsed.values("xlink:href")]
    assert {address[:1] for address in addresses} <= {"#", "d"}
    assert [address for address in addresses if address.startswith("d")] == ["data:,"]  # no favicon is asked for
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", text)
    for row in judgement.rows:
        assert row.claim.name in parsed.words
        assert f"claim-odd-{row.claim.id}" in ids
    for arm in judgement.arms:
        assert f"arm-{arm.name}" in ids
        assert all(run_id in parsed.words for run_id in arm.missing.values())
    assert judgement.command in parsed.words
    assert "A rehearsal." in parsed.words
    assert "4 of 12 planned runs are missing" in parsed.words


def test_what_others_wrote_is_text(made: Made):
    judgement = made.judged()
    judgement.problems.append("<i>a</i>|b: left out")
    judgement.rows[0].notes.append("<u>note</u>")
    parsed = Page(page(judgement, [PLOT]))
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"b", "i", "u", "plot"}
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    for said in ('<script>alert("no")</script> a|b & "c" *d*', "<b>x|y</b>", "<i>a</i>|b", "<u>note</u>", "A <plot>"):
        assert said in parsed.words


def test_no_control_character_and_no_raw_html_of_a_text_is_in_any_file(made: Made, tmp_path: Path):
    """Ids, names and messages of strangers: escape sequences, line breaks, HTML, formulas of spreadsheets."""
    hostile = '=HYPERLINK("x")\x1b]52;c;aWQ=\x07\u202e\n\n<script>x</script>\n```\n<img onerror=x>'
    judgement = made.judged(without=(0,))
    row = judgement.rows[0]
    row.claim = dataclasses.replace(row.claim, id=hostile, statement=f"# {hostile}", section="1. a")
    row.notes.append(hostile)
    row.arms[0].missing[0] = hostile
    judgement.problems.append(hostile)
    judgement.plan["line"] = ["study=lrn", f"model.lrn={hostile}"]
    folder = tmp_path / "report"
    write(judgement, made.archive, folder)
    texts = {path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".png"}
    assert {"report.md", "report.html", "claims.csv", "cost.svg", "forest.svg"} <= texts.keys()
    for name, text in texts.items():
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text), name
        if name.endswith(".svg"):
            ElementTree.fromstring(text)
    assert not Page(texts["report.html"]).open
    shown = MarkdownIt("commonmark").enable("table").render(texts["report.md"])  # which lets raw HTML through
    assert not re.search(r"<script|<img onerror", shown)
    assert "<script>x</script>" in html.unescape(shown)
    assert shown.count("<h1>") == 1
    cells = next(csv.DictReader(io.StringIO(texts["claims.csv"])))
    assert cells["statement"].startswith("# =")


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_no_cell_is_a_formula(made: Made, tmp_path: Path, start: str):
    judgement = made.judged()
    row = judgement.rows[0]
    row.claim = dataclasses.replace(row.claim, statement=start)
    write(judgement, made.archive, tmp_path)
    cells = next(csv.DictReader(io.StringIO((tmp_path / "claims.csv").read_text())))
    assert cells["statement"] == f"'{start}"
    assert float(cells["published"]) < 0  # and a negative number is a number


def test_texts_of_a_plot_are_not_taken_for_its_source(tmp_path: Path):
    """An id such as a data address ended the report, and a style in a name ate the elements after it."""
    names = ['data:image/png;base64,AAAA"', "font: 12px <b>", ' id="x" d="1.23456"', "#010203", 'href="#x"']
    save(forest([ForestRow(name, 1.0, section=name) for name in names]), tmp_path / "a")
    root = ElementTree.fromstring((tmp_path / "a.svg").read_text())
    shown = [text.strip() for text in root.itertext()]
    assert [shown.count(name.strip()) for name in names] == [2] * len(names)  # as a heading, and in its row


def test_the_same_records_give_the_same_bytes(made: Made):
    judgements = [made.judged() for _ in range(2)]
    assert len({page(judgement, [PLOT]) for judgement in judgements}) == 1
    assert len({markdown(judgement, [PLOT]) for judgement in judgements}) == 1


def test_verdicts_doubts_and_intervals_are_those_of_the_judgement(made: Made):
    whole = made.judged("imagenet128")
    assert {row.verdict for row in whole.rows} >= {"does not train: no_dropout", "not testable here"}
    parsed = Page(page(whole, []))
    text = markdown(whole, [])
    assert "A rehearsal" not in parsed.words
    assert "Interim." not in parsed.words
    for row in whole.rows:
        assert row.verdict is not None
        assert row.verdict in parsed.words
        assert f"**{row.verdict}**" in text
        if row.effect is not None and not row.claim.ratio and row.claim.metric == "top1_error":
            for half in (row.effect.fixed, row.effect.new, row.effect.decisive):
                assert half is not None
                ends = [f"{100 * (row.effect.difference + sign * half):+.2f}".replace("-", "−") for sign in (-1, 1)]
                assert " to ".join(ends) in parsed.words
                assert " to ".join(ends) in text
    assert "p = 1.000" in parsed.words  # 1 of 3 against none of 3
    assert "2, 1 failed" in parsed.words


def test_findings_come_first(made: Made):
    """Five sentences, before the tables, on the page and in Markdown."""
    for recipe, second in (("imagenet128", "Found: "), ("demo", "Measured, without verdicts: ")):
        judgement = made.judged(recipe)
        words, text = Page(page(judgement, [])).words, markdown(judgement, [])
        for said in (words, text):
            places = [
                said.index(start) for start in ("Question: do 6 claims", second, "Sizes: ", "Open: ", "Caveats: ")
            ]
            assert places == sorted(places)
            assert places[-1] < said.index("planned runs are finished")
    assert "does not train: ratio" in Page(page(made.judged("imagenet128"), [])).words


def test_the_rule_is_in_the_published_unit(made: Made):
    """A quarter of 1.4 and of 1.5 points, and of a ratio of 2 by its logarithm: its fourth root, 1.189."""
    words = Page(page(made.judged("imagenet128"), [])).words
    for quarter in ("0.35 points", "0.375 points", "1.19"):
        assert f"excludes {quarter}, a quarter of the published effect" in words


def test_every_verdict_has_a_meaning_and_a_place():
    assert {verdict.value for verdict in Verdict} < set(MEANINGS)


def test_a_row_has_its_share_of_the_published_effect_and_the_original_pair(made: Made):
    judgement = made.judged("imagenet128")
    odd = judgement.rows[0]
    assert odd.share is not None
    assert odd.strength is not None
    words = Page(page(judgement, [])).words
    assert f"{odd.share[0]:.2f} (".replace("-", "−") in words
    assert f"z = {odd.strength:.1f} for the published effect" in words


def test_confounds_are_marked(made: Made):
    judgement = made.judged()
    assert len(judgement.rows[0].confounds) == 1
    parsed = Page(page(judgement, []))
    assert "1 confound" in parsed.words
    assert judgement.rows[0].confounds[0] in parsed.words
    assert judgement.rows[0].confounds[0] in markdown(judgement, [])


@pytest.mark.parametrize("runs", [0, 1])
def test_no_run_or_one_is_no_number_that_is_none(made: Made, runs: int):
    judgement = made.judged("imagenet128", without=(0, 1, 2)[runs:], begun=runs > 0)
    parsed, text = Page(page(judgement, [])), markdown(judgement, [])
    for words in (parsed.words, text):
        assert not re.search(r"\b(nan|NaN|inf|Infinity|None)\b", words)
        assert f"{4 * runs} of 12 planned runs are finished" in words
        assert f"{12 - 4 * runs} of 12 planned runs are missing" in words
        assert ("not started by study=" in words) == (runs == 0)
    assert not {"nan", "inf", "None"} & set(parsed.values("data-sort"))


def test_a_study_without_claims_has_a_page(made: Made):
    parsed = Page(page(made.judged(claims=False), []))
    assert not parsed.open
    assert "This study has no claims." in parsed.words


def test_markdown_has_whole_tables(made: Made):
    judgement = made.judged(without=(0,))
    judgement.problems.append("<i>a</i>|b: left out")
    text = markdown(judgement, [PLOT])
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [2 + len(judgement.rows), 2 + len(judgement.arms)]
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert "\\<script\\>" in text
    assert "\\<i\\>a\\</i\\>\\|b: left out" in text
    assert "![A \\<plot\\>](a.png)" in text
    assert f"```bash\n{judgement.command}\n```" in text


# --- In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with playwright.sync_playwright() as started:
        found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
        path = next(filter(None, [*found, started.chromium.executable_path]))
        if not Path(path).exists():
            pytest.skip("needs a Chromium: apt install chromium, or playwright install chromium")
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a judgement's page; whatever it says on the console or asks for besides itself fails the test."""
    contexts, said, asked = [], [], []

    def opened(judgement: Judgement, width: int = 1280, scheme: str = "light", hash: str = "", js: bool = True) -> Any:
        path = tmp_path / "report.html"
        path.write_text(page(judgement, [PLOT]), encoding="utf-8")
        size = {"width": width, "height": 800}
        context = browser.new_context(viewport=size, color_scheme=scheme, java_script_enabled=js)
        contexts.append(context)
        context.on("console", lambda message: said.append(message.text))
        context.on("weberror", lambda error: said.append(str(error.error)))
        context.on("request", lambda request: asked.append(request.url))
        shown = context.new_page()
        shown.goto(f"{path.as_uri()}{hash}")
        return shown

    yield opened
    for context in contexts:
        context.close()
    assert not said
    assert {url.partition(":")[0] for url in asked if not url.startswith("data:,")} == {"file"}
    assert {url.partition("#")[0] for url in asked if url.startswith("file")} == {(tmp_path / "report.html").as_uri()}


def shown_claims(shown: Any) -> list[str]:
    return shown.eval_on_selector_all("#claims-table > tbody:not([hidden])", "found => found.map(one => one.id)")


@pytest.mark.slow
def test_tables_are_sorted_as_numbers(show: Callable[..., Any], made: Made):
    shown = show(made.judged("imagenet128"))
    before = shown_claims(shown)
    head = shown.locator("#claims-table > thead th", has_text="Measured")

    def measured() -> list[float]:
        texts = shown.locator("#claims-table .row td:nth-child(3) .effect").all_text_contents()
        return [float(text.replace("−", "-").replace("×", "")) for text in texts]

    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert len(measured()) == 5
    assert measured() == sorted(measured())
    assert shown_claims(shown)[-1] == "claim-odd-never"  # has no number
    head.locator("button").focus()
    shown.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert measured() == sorted(measured(), reverse=True)
    assert shown_claims(shown)[-1] == "claim-odd-never"
    shown.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "none"
    assert shown_claims(shown) == before
    verdict = shown.locator("#claims-table > thead th", has_text="Verdict")
    verdict.locator("button").click()
    words = shown.locator("#claims-table .row .verdict").all_text_contents()
    assert words[0] == "reproduced"
    assert words[-1] == "not testable here"
    assert shown.locator("[aria-sort]:not([aria-sort=none])").count() == 1
    arms = shown.locator("#arms th", has_text="Top-1")
    arms.locator("button").click()
    errors = shown.locator("#arms tbody td:nth-child(2)").all_text_contents()
    assert [float(text.split()[0]) for text in errors] == sorted(float(text.split()[0]) for text in errors)


@pytest.mark.slow
def test_claims_are_found_by_words_and_by_verdict(show: Callable[..., Any], made: Made):
    shown = show(made.judged("imagenet128"))
    shown.fill("#find", "RATIO  no_dropout")
    assert shown_claims(shown) == ["claim-odd-ratio"]
    assert shown.text_content("#count") == "1 of 6"
    shown.fill("#find", "nowhere to be found")
    assert shown_claims(shown) == []
    assert shown.is_visible("#nothing")
    shown.fill("#find", "")
    assert len(shown_claims(shown)) == 6
    assert not shown.is_visible("#nothing")
    shown.select_option("#kind", "does not train")
    assert shown_claims(shown) == ["claim-odd-ratio"]
    shown.click(".tally a:has-text('not testable here')")
    assert shown_claims(shown) == ["claim-odd-never"]


@pytest.mark.slow
def test_rows_open_and_links_lead_there(show: Callable[..., Any], made: Made):
    shown = show(made.judged(without=(0,)))
    details = shown.locator("#claim-odd-odd-more")
    assert not details.locator("dl").first.is_visible()
    details.locator("summary").click()
    assert details.locator("dl").first.is_visible()
    details.locator("summary").focus()
    shown.keyboard.press("Enter")
    assert not details.locator("dl").first.is_visible()
    shown.click("#claim-odd-odd .statement")
    assert details.locator("dl").first.is_visible()
    shown.click("#all")
    assert shown.locator("#claims-table details[open]").count() == 6
    shown.click("#all")
    assert shown.locator("#claims-table details[open]").count() == 0
    shown.click("#claim-odd-odd .mark")
    assert details.get_attribute("open") is not None
    for link in shown.locator("nav a").all():
        link.click()
        where = link.get_attribute("href")
        assert where is not None
        top = shown.evaluate("id => document.querySelector(id).getBoundingClientRect().top", where)
        assert -1 <= top < 800
    assert show(made.judged(), hash="#claim-odd-ratio").locator("#claim-odd-ratio details[open]").count() == 1


@pytest.mark.slow
def test_a_phone_shows_all_of_it(show: Callable[..., Any], made: Made):
    for js in (True, False):
        shown = show(made.judged(without=(0,)), width=360, js=js)
        if js:
            shown.click("#all")
            assert shown.evaluate("document.documentElement.scrollWidth") <= 360
        else:
            assert shown.locator("#find").is_hidden()
        box = shown.locator("#claim-odd-odd .row td").nth(6).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert shown.locator("#claim-odd-odd .intervals").first.is_visible()


@pytest.mark.slow
def test_text_is_legible_in_both_colour_schemes(show: Callable[..., Any], made: Made):
    places = [
        "body",
        "h1",
        ".soft",
        ".statement",
        ".tag a",
        ".verdict",
        ".mark",
        ".banner p",
        ".command pre",
        "summary",
    ]
    places += ["thead th", "thead button", "nav a", ".facts > dt", ".extra", ".failed", "button", "input", "footer"]
    papers = []
    for scheme in ("light", "dark"):
        shown = show(made.judged(without=(0,)), scheme=scheme)
        for turned in (False, True):
            if turned:
                shown.click("#theme")
            for place in places:
                ink, paper = shown.eval_on_selector(place, COLOURS_OF)
                assert contrast(ink, paper) >= 4.5, (scheme, turned, place, ink, paper)
            papers.append(shown.eval_on_selector("body", COLOURS_OF)[1])
    assert papers == [papers[0], papers[1], papers[1], papers[0]]
    assert luminance(papers[0]) > 0.8 > 0.1 > luminance(papers[1])


COLOURS_OF = """element => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  let paper = [0, 0, 0, 0];
  for (let one = element; one && paper[3] === 0; one = one.parentElement) {
    const found = numbers(getComputedStyle(one).backgroundColor);
    paper = found.length === 3 ? [...found, 1] : found;
  }
  return [numbers(getComputedStyle(element).color).slice(0, 3), paper.slice(0, 3)];
}"""


def luminance(colour: list[float]) -> float:
    """WCAG 2's relative luminance."""
    parts = [part / 255 for part in colour]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
