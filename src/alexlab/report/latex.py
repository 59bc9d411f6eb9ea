"""Tables for a paper, in LaTeX with the package booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from alexlab.console import printable_line
from alexlab.report.content import in_order
from alexlab.report.wording import measured, published, runs
from alexlab.study.judgement import Judgement

_SPECIAL = {
    **{one: rf"\{one}" for one in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\ensuremath{<}"},
    **{">": r"\ensuremath{>}", "±": r"\ensuremath{\pm}", "−": r"\ensuremath{-}", "×": r"\ensuremath{\times}"},
    **{"“": "``", "”": "''", "–": "--", "’": "'", "→": r"\ensuremath{\rightarrow}", "§": r"\S{}"},
}


def claims_latex(judgement: Judgement) -> str:
    """The claims that the study tests: published and measured effect with the study-wise interval, and the verdict."""
    rows = [
        [
            row.claim.section,
            row.claim.statement.rstrip("."),
            published(row),
            measured(row),
            runs(row),
            row.verdict or "no verdict",
        ]
        for row in in_order(judgement.rows)
        if row.effect is not None or row.level is not None
    ]
    caption = f"Study {judgement.plan['name']} at recipe {judgement.plan['recipe']}: effects with study-wise intervals."
    if any(row.level is not None for row in judgement.rows):
        caption += " The interval of a level is the prediction interval of one more run."
    heads = ["Section", "Claim", "Published", "Measured", "Runs", "Verdict"]
    return table_latex(heads, "lp{5.5cm}rrrp{2.5cm}", rows, caption)


def table_latex(heads: Sequence[str], columns: str, rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table of texts, which are escaped."""
    lines = [r"% \usepackage{booktabs}", r"\begin{table}", rf"\caption{{{escaped(caption)}}}", r"\centering\small"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [rf"{' & '.join(map(escaped, heads))} \\", r"\midrule"]
    lines += [rf"{' & '.join(map(escaped, row))} \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def escaped(text: str) -> str:
    """Escape a text for LaTeX, on one line; hyphens before numbers become minus signs."""
    text = re.sub(r"(?<!\w)-(?=\d)", "−", printable_line(text))
    return "".join(_SPECIAL.get(one, one) for one in text)
