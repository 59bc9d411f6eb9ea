"""The pages of README.md and docs/: links, anchors, navigation and the files that they name. MkDocs is not needed."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import alexlab
from alexlab.config import PROJECT_DIR
from alexlab.study.claims import METRICS

DOCS = PROJECT_DIR / "docs"
WRITTEN = [PROJECT_DIR / "README.md", *(PROJECT_DIR / name for name in ("CONTRIBUTING.md", "SECURITY.md"))]
WRITTEN += [page for page in sorted(DOCS.rglob("*.md")) if page.name != "paper.md"]
PAGES = [*WRITTEN, DOCS / "paper.md", PROJECT_DIR / "CODE_OF_CONDUCT.md"]
PAGES += sorted((PROJECT_DIR / "results").glob("**/README.md"))


def name_of(page: Path) -> str:
    return str(page.relative_to(PROJECT_DIR))


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@cache
def anchors(page: Path) -> set[str]:
    """Anchors of the page's headings, as code hosts and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_anchors_exist(page: Path):
    text = without_code(page.read_text())
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.resolve()), target
        assert "--" not in anchor, f"{target}: GitHub and MkDocs name the anchor of such a heading in different ways"


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_named_files_exist(page: Path):
    """Paths in code style, such as `conf/claims/`; `<...>` and `...` stand for something else."""
    named = re.findall(r"`((?:src|conf|tests|docs|benchmarks|notebooks|results)/[\w./]*)`", page.read_text())
    assert [path for path in named if not (PROJECT_DIR / path).exists() and "mine" not in path] == []


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_the_terms_are_those_of_the_field(page: Path):
    """Words that a reader would not search for: checkpoint, lease, prefetch, ensemble, non-finite are the terms."""
    avoided = r"\b(tells|told|mends?|typed again|goes on|went on|begun|alike|besides|behind|as it stands|damaged)\b"
    prose = re.sub(r"`[^`]*`", "", without_code(page.read_text()))
    assert re.findall(avoided, prose, re.IGNORECASE) == []


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags (`!ENV`, `!!python/name:`) stand for objects of MkDocs."""


_Loader.add_multi_constructor("", lambda loader, suffix, node: None)


def listed(nav: Any) -> list[str]:
    """Every page of a navigation, in its order."""
    if isinstance(nav, str):
        return [nav]
    return [page for one in (nav.values() if isinstance(nav, dict) else nav) for page in listed(one)]


def test_the_navigation_lists_every_page_once():
    config = yaml.load((PROJECT_DIR / "mkdocs.yml").read_text(), _Loader)
    assert sorted(listed(config["nav"])) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
    assert config["strict"] is True
    assert {level for levels in config["validation"].values() for level in levels.values()} == {"warn"}


def test_the_overview_links_every_page():
    linked = set(re.findall(r"\]\(([^)#]+)", (DOCS / "index.md").read_text()))
    assert linked == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}


def test_the_citation_is_complete():
    citation = yaml.safe_load((PROJECT_DIR / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    [paper] = citation["references"]
    assert paper["year"] == 2012
    assert [author["family-names"] for author in paper["authors"]] == ["Krizhevsky", "Sutskever", "Hinton"]


@pytest.mark.parametrize(
    "workflow", sorted((PROJECT_DIR / ".github" / "workflows").glob("*.yml")), ids=lambda p: p.stem
)
def test_workflows_run_targets_of_the_makefile(workflow: Path):
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT_DIR / "Makefile").read_text(), re.MULTILINE))
    used = {target for command in commands for target in re.findall(r"\bmake ([a-z-]+)", command)}
    assert used
    assert used <= targets


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((PROJECT_DIR / "CITATION.cff").read_text())
    releases = re.findall(r"^## \[(\d[\w.]*)\] - (\S+)$", (PROJECT_DIR / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == (alexlab.__version__, str(citation["date-released"]))
    assert citation["version"] == alexlab.__version__


def test_pages_use_the_installed_command():
    """README.md and the overview say once that the scripts of a checkout are the same."""
    for page in WRITTEN:
        named = re.findall(r"python src/\w+\.py", page.read_text())
        assert not named or page in (PROJECT_DIR / "README.md", DOCS / "index.md"), page


def test_hooks_need_no_environment_of_the_project():
    [tools] = yaml.safe_load((PROJECT_DIR / ".pre-commit-config.yaml").read_text())["repos"]
    assert tools["hooks"]
    for hook in tools["hooks"]:
        [package] = hook["additional_dependencies"]
        assert hook["language"] == "python"
        assert hook["entry"].split()[0] == package.partition("==")[0]


def test_the_table_of_metrics_is_that_of_the_code():
    page = (PROJECT_DIR / "docs" / "how-to" / "studies.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", page.partition("### Metrics")[2], re.MULTILINE)
    assert rows == [(name, words, unit or "fraction, 0 to 1") for name, (words, unit, _) in METRICS.items()]
