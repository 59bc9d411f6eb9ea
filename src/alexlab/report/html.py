"""A study's report as one self-contained HTML file; the same judgement gives the same bytes."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from alexlab.console import printable
from alexlab.report.content import PlotOnPage, report_content
from alexlab.study.verdicts import Judgement


def page(judgement: Judgement, figures: list[PlotOnPage]) -> str:
    """The report as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["dotted"] = lambda text: Markup("<wbr>").join(re.split(r"(?<=[.=/])", text))
    text = environment.get_template("page.html.j2").render(
        **report_content(judgement),
        plots=[(f"plot-{number}", plot, Markup(plot.svg)) for number, plot in enumerate(figures, 1)],
    )
    return printable(text)
