"""The analysis of a study as settings, and the plan of it that is fixed before the first score.

The plan is what a reader has to know was decided in advance: the primary estimand, who is low- and
high-resource, what is left out, the smallest effect of interest, which tasks, budgets, seeds and languages there are,
and the outcome: the metric of each target, the examples it is scored on, and the checkpoint that counts. It is written
once, before any cell is scored, and never overwritten while there are scores; the page compares it with the settings
that the contrasts were made with. Standard library only, for the Snakefile.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xlift.artifacts import fingerprint, publish_json
from xlift.errors import UserError
from xlift.languages import SOURCE_LANGUAGE, Language
from xlift.resource import MEASURES, Resource, measure_of, pretraining_of, read_sizes, resource_levels
from xlift.settings import HubEncoder
from xlift.study import Study

ANALYSIS_VERSION = 1
"""Raise it when the estimator of a planned contrast changes: pages then say that the analysis changed.

By hand, as a hash of the code would call every comment a change; a test holds it to the numbers that this version
gives (tests/unit/test_analysis.py), so that it cannot be forgotten.
"""
PLAN = "analysis_plan.json"
PLAN_ENTRIES = {
    "plan": "Confirmatory contrasts, strata, smallest effect, tasks, budgets, seeds, languages, what is left out.",
    "fingerprint": "sha256 of the plan's canonical JSON; its first twelve digits are on the page.",
    "before_first_score": "Whether there was no score yet when it was written.",
    "written": "Date of writing (UTC), for people.",
}
"""analysis_plan.json."""
FEWEST_SEEDS = 3
"""Fewer give an estimate without interval or p."""
CONFIRMATORY = ("beta_per_doubling", "low_minus_high_per_doubling", "unseen_minus_rest_per_doubling")
"""Tested contrasts, primary first; in points, over all cells, by two-way clustered errors, adjusted by Holm."""


def analysis_settings(study: Study) -> dict[str, Any]:
    """What of the study the contrasts are made with: the block `contrasts` with everything resolved."""
    block = study.contrasts
    measure = measure_of(block.resource, block.low_below, block.high_from)
    own = block.resource not in MEASURES
    encoder_id = study.encoder.id if isinstance(study.encoder, HubEncoder) else None
    return {
        "resource": block.resource,
        "low_below": measure.low_below,
        "high_from": measure.high_from,
        "pretraining": pretraining_of(encoder_id) if block.pretraining == "auto" else block.pretraining,
        "own_sizes": read_sizes(Path(block.resource)) if own else None,
        "confidence": block.confidence,
        "smallest_effect": block.smallest_effect,
        "bootstrap_draws": block.bootstrap_draws,
        "permutations": block.permutations,
        "shared_trunk": study.schedule == "trunk",
        "chance": {name: task.chance for name, task in sorted(study.named.items())},
    }


def analysis_plan(study: Study, target_languages: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The plan of a study's analysis; `target_languages` are the languages that each target is scored in."""
    return {
        "version": ANALYSIS_VERSION,
        "confirmatory": list(CONFIRMATORY),
        "left out": ["English", "shared training data", "arms other than the main one, controls among them"],
        "collapsed runs": "kept",
        "intermediates": list(study.intermediates),
        "budgets": [entry.text for entry in study.budgets],
        "seeds": list(study.seeds),
        "targets": list(study.targets),
        "languages": {target: list(codes) for target, codes in target_languages.items()},
        "metrics": {target: study.catalog[target].metrics[0] for target in study.targets},
        "score_on": study.data.score_on,
        "select": study.training.select,
        # Chance levels are the targets', and nothing that could be decided otherwise.
        **{name: value for name, value in analysis_settings(study).items() if name != "chance"},
    }


def doubts(study: Study, languages: Mapping[str, Language]) -> list[str]:
    """What a study's own settings keep it from saying, in sentences; such a study may run, as a pilot does."""
    said = []
    if len(study.seeds) < FEWEST_SEEDS:
        count = f"{len(study.seeds)} seed{'s' if len(study.seeds) > 1 else ''}"
        said.append(f"with {count} there are estimates but no intervals or p-values; list {FEWEST_SEEDS} seeds or more")
    if len(study.budgets) < 2:
        said.append("with one budget nothing can be said of more training; list another")
    strata = study_levels(study, languages).strata
    scored = {code for target in study.targets for code in study.target_languages(target)} - {SOURCE_LANGUAGE}
    for name in ("low", "high"):
        if name not in {strata.get(code) for code in scored}:
            said.append(f"no scored language is {name}-resource, so low - high is not identified; add one to languages")
    return said


def study_levels(study: Study, languages: Mapping[str, Language]) -> Resource:
    """The resource levels of a study; `UserError` where they make no sense, as `resource_levels` says.

    A language of a task of the study's own that the table of languages lacks is refused here, before anything runs.
    """
    for name in sorted({*study.targets} & {*study.tasks}):
        missing = sorted({*study.target_languages(name)} - {*languages})
        if missing:
            raise UserError(
                f"tasks.{name}.languages: {', '.join(missing)} is not in config/languages.csv; add a line for it there"
            )
    settings = analysis_settings(study)
    names = ("low_below", "high_from", "pretraining", "own_sizes")
    return resource_levels(languages.values(), settings["resource"], **{name: settings[name] for name in names})


def write_plan(plan: Mapping[str, Any], results: Path) -> None:
    """Write the plan of a study, and whether there were scores already, to its folder.

    The date is for people: nothing is made of it.
    """
    content = {
        "plan": dict(plan),
        "fingerprint": fingerprint(dict(plan)),
        "before_first_score": not has_scores(results),
        "written": datetime.now(UTC).date().isoformat(),
    }
    publish_json(results / PLAN, content)


def has_scores(results: Path) -> bool:
    """Whether any cell of a study has been scored: there are scores, or what is made of them and of nothing else.

    Whoever deletes a plan with all of these starts a study anew, and nothing in its folder can tell.
    """
    made = ("scores.parquet", "gains.parquet", "contrasts.parquet", "report/index.html")
    return any((results / name).exists() for name in made) or any((results / "scores").glob("*/*/*/*.parquet"))


def read_plan(path: Path) -> dict[str, Any]:
    """What `write_plan` wrote; `UserError` where the file is damaged or was altered."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(content["before_first_score"], bool) and content["fingerprint"] == fingerprint(
            content["plan"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(
            f"{path}: is damaged or was altered; bring it back from a copy, or delete it (the page will then say that "
            "no plan was fixed before the first score)"
        )
    return dict(content)


def plan_to_write(plan: dict[str, Any], results: Path) -> dict[str, Any]:
    """The plan that belongs in a study's folder now: once there are scores, the one that is there already."""
    path = results / PLAN
    return dict(read_plan(path)["plan"]) if path.exists() and has_scores(results) else plan


def plan_changes(planned: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What differs between a plan and the settings now, one text a setting: "smallest_effect: 0.2 -> 0.5"."""
    changes = []
    for name in sorted({*planned, *current}):
        old, new = planned.get(name), current.get(name)
        if old == new:
            continue
        if isinstance(old, list) and isinstance(new, list):
            sides = (("-", old, new), ("+", new, old))
            parts = [f"{sign}{_text(item)}" for sign, a, b in sides for item in a if item not in b]
            changes.append(f"{name}: {', '.join(parts) or 'another order'}")
        elif isinstance(old, dict) and isinstance(new, dict):
            # An added or removed target is told of once, under "targets".
            shared = set(old) & set(new) if name in ("languages", "metrics") else {*old, *new}
            inner = ({key: part[key] for key in part if key in shared} for part in (old, new))
            changes += [f"{name}, {change}" for change in plan_changes(*inner)]
        else:
            changes.append(f"{name}: {_text(old)} -> {_text(new)}")
    return changes


def plan_sentence(path: Path, current: Mapping[str, Any]) -> str:
    """Whether the analysis with the settings as they are now is the planned one, or what changed after the plan."""
    if not path.exists():
        return f"No plan was fixed before the first score: there is no {path.name}."
    content = read_plan(path)
    mark = str(content["fingerprint"])[:12]
    if not content["before_first_score"]:
        return f"No plan was fixed before the first score: the plan {mark} was written when there were scores already."
    changes = plan_changes(content["plan"], current)
    if not changes:
        return f"As planned: the analysis is the one that was fixed before the first score (plan {mark})."
    listed = "; ".join(changes)
    return f"Not as planned: the plan {mark} was fixed before the first score, and since then changed {listed}."


def _text(value: Any) -> str:
    if value is None:
        return "unset"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, dict) else str(value)
