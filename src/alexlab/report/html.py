"""A report as one self-contained HTML file; the same records give the same bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from alexlab.console import printable
from alexlab.report.content import PlotOnPage, report_content
from alexlab.study.judgement import Judgement


def page(judgement: Judgement, figures: list[PlotOnPage]) -> str:
    """A study's report as HTML."""
    return render("page.html.j2", report_content(judgement), figures)


def css_class(verdict: str) -> str:
    """The class of a verdict in the style sheet, such as v-same-direction-larger."""
    return f"v-{re.sub(r'[^a-z]+', '-', verdict)}"


def render(template: str, content: dict[str, Any], figures: list[PlotOnPage]) -> str:
    """Render a template of this folder with its content and plots."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["dotted"] = lambda text: Markup("<wbr>").join(re.split(r"(?<=[.=/])", text))
    environment.filters["css_class"] = css_class
    text = environment.get_template(template).render(
        **content,
        plots=[(f"plot-{number}", plot, Markup(plot.svg)) for number, plot in enumerate(figures, 1)],
    )
    return printable(text)
