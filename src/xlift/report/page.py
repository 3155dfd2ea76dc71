"""The report page: one HTML file without any request to a network, the same bytes for the same inputs.

All text is escaped by the template; figure specs travel as JSON in which no character can end the script
element; a content security policy allows only the page's own scripts (by hash) and no request.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from xlift.report.citations import bibliography, cited, in_words
from xlift.report.contrast_tables import headlines
from xlift.report.cost import run_totals
from xlift.report.figures import Figure, theme
from xlift.report.inputs import GROUPS, OFFLINE_PREFIX, ReportInputs, default_target, gain_by_cell, targets_shown
from xlift.report.methods import methods_text
from xlift.report.run_tables import MOST_RUN_ROWS, missing_cells
from xlift.report.tables import Table, budget_label, target_title

__all__ = ["ReportInputs", "render_page"]


def render_page(inputs: ReportInputs, figures: Sequence[Figure], tables: Mapping[str, Table]) -> str:
    """The whole report as HTML, of the inputs' figures (`build_figures`) and tables (`build_tables`)."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("xlift.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["script_hash"] = script_hash
    means = gain_by_cell(inputs)
    methods = methods_text(inputs)
    return environment.get_template("page.html").render(
        study=inputs.study,
        settings=settings(inputs),
        answer=[line for line in inputs.answer.splitlines() if line.strip()],
        headlines=headlines(inputs),
        confidence=inputs.confidence,
        several_methods=inputs.contrasts.select("scale", "method").n_unique() > 1,
        plan=inputs.plan,
        figures={figure.key: figure for figure in figures},
        figure_data=embedded_json(figure_data(inputs, figures)),
        libraries=Markup(libraries()),
        tables=tables,
        most_run_rows=MOST_RUN_ROWS,
        targets=[(target, target_title(target)) for target in targets_shown(inputs)],
        default_target=default_target(inputs),
        groups=GROUPS,
        missing=missing_cells(inputs),
        missing_means=means["gain"].null_count(),
        means=means.height,
        totals=run_totals(inputs.runs),
        provenance=flat_facts(inputs.provenance),
        methods=in_words(methods),
        bibtex=bibliography(cited(methods)),
        limits=limits(inputs),
    )


@functools.cache
def libraries() -> str:
    """Vega, Vega-Lite and vega-embed as one script; more than a second to make, the same every time."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle


def embedded_json(value: Any) -> Markup:
    """JSON safe inside a script element: no <, > or & can end it, no line separator can break it."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def script_hash(script: str) -> str:
    """The source expression with which a content security policy allows this script (CSP 2, hash-source)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()


def figure_data(inputs: ReportInputs, figures: Sequence[Figure]) -> dict[str, Any]:
    """What the page's script draws and saves: each figure's spec, title and width, and the two themes."""
    drawn = [figure for figure in figures if figure.spec is not None]
    return {
        "study": inputs.study["name"],
        "figures": {figure.key: figure.spec for figure in drawn},
        "titles": {figure.key: figure.text.title for figure in drawn},
        "widths": {figure.key: figure.width for figure in drawn},
        # The page has its own background; only pictures outside it need one.
        "themes": {name: theme(name == "dark") | {"background": "transparent"} for name in ("light", "dark")},
    }


def settings(inputs: ReportInputs) -> list[tuple[str, str]]:
    """The study's settings in words."""
    study = inputs.study
    return [
        ("encoder", str(study["encoder"])),
        ("intermediate tasks", ", ".join(inputs.intermediates)),
        ("budgets", ", ".join(budget_label(budget) for budget in inputs.budgets) + " of the reference steps"),
        ("seeds", ", ".join(str(seed) for seed in study["seeds"])),
        ("target tasks", ", ".join(inputs.targets)),
        ("languages", f"{len(study['languages'])}: {', '.join(str(code) for code in study['languages'])}"),
        ("low, high", "below {}, from {}".format(*_bounds(inputs))),
    ]


def _bounds(inputs: ReportInputs) -> tuple[str, str]:
    """The bounds of low and high in words."""
    measure = inputs.resource.measure
    return measure.amount(measure.low_below), measure.amount(measure.high_from)


def flat_facts(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as (name, value) pairs sorted by name, mappings opened with " · " in between."""
    pairs: list[tuple[str, str]] = []
    for name in sorted(facts):
        value = facts[name]
        if isinstance(value, Mapping):
            pairs += flat_facts(value, f"{prefix}{name} · ")
        elif isinstance(value, list | tuple):
            pairs.append((f"{prefix}{name}", ", ".join(str(item) for item in value)))
        else:
            pairs.append((f"{prefix}{name}", "–" if value is None else str(value)))
    return pairs


def limits(inputs: ReportInputs) -> list[str]:
    """How to read the page and what it cannot say, for this study."""
    study = inputs.study
    low, high = _bounds(inputs)
    notes = [
        "A gain is the score of a cell minus the baseline's (no intermediate task) at the same target, "
        "language and seed, in points of the target's primary metric. English, the source of all training "
        "data, is in no average.",
        f"Strata are cut by resource level: low is below {low}, high from {high}, mid between; unseen languages were "
        "not in the encoder's pretraining, or have no text in this measure, and are a stratum of their own.",
        "The study is observational in language: budgets are assigned, resource levels are not. Script, "
        "language family, tokenisation and test sets differ with the resource level, so a contrast never "
        "says “because low-resource”.",
        "Points are the primary scale. They can disagree with chance-corrected logits and relative error "
        "reduction, since a low score has more headroom: these stand beside them.",
        "The clustered method is primary. The crossed mixed model, the bootstrap over languages and runs, and the "
        "permutation of resource levels (within scripts for β) ask the same of the same gains with other "
        "assumptions; “tost” rows test whether the effect is smaller than the smallest of interest, with the interval "
        "that belongs to that test.",
        "Two-way clustered intervals treat languages and training runs as the units that vary. Intervals of "
        "single targets or intermediate tasks are exploratory; p values are adjusted within their set.",
        "Maps and tables by language describe; they are means over the seeds without an interval. A mean "
        "with a missing cell is a dash, and a mean over all targets exists only for a language that every "
        "target has.",
        "Collapsed runs (English dev score at the floor) stay in every figure and are listed above.",
    ]
    if len(study["seeds"]) < 3:
        count = f"{len(study['seeds'])} seed{'s' if len(study['seeds']) != 1 else ''}"
        notes.append(
            f"This study has {count}. With fewer than 3 the run-to-run spread is not known well enough, so "
            "there are no intervals and no p values: read the estimates as a trial of the workflow."
        )
    offline = [target for target in inputs.targets if target.startswith(OFFLINE_PREFIX)]
    if offline:
        whole = len(offline) == len(inputs.targets)
        which = "All targets belong" if whole else f"Of the targets, {', '.join(offline)} belong"
        notes.append(
            f"{which} to the offline benchmark made from Unicode CLDR names. It is made for trying the "
            "workflow and is not XTREME-R: its scores say nothing about published numbers."
        )
    return notes
