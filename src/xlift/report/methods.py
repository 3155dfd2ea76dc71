"""The methods of a study in a paragraph that can be pasted into a paper, made of the study's own numbers."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from xlift.analysis import FEWEST_SEEDS
from xlift.catalog.task import MAIN
from xlift.contrasts.answer import counted
from xlift.contrasts.rows import TOST
from xlift.languages import SOURCE_LANGUAGE, STRATA
from xlift.report.cost import hours_by_kind, total
from xlift.report.inputs import OFFLINE_PREFIX, ReportInputs, group_of
from xlift.report.tables import budget_label, number

MOST_LISTED = 4
"""Above this many intermediate tasks their steps are told as a range; the table of runs has each."""
_ENCODERS = {"xlm-r": "conneau2020", "e5": "wang2024", "mt5": "xue2021"}
_MEASURES = {"cc100": " [@conneau2020]", "joshi": " [@joshi2020]", "mc4": " [@xue2021]"}


def methods_text(inputs: ReportInputs) -> str:
    """The paragraph, with marks for what it cites (see `citations`)."""
    sentences = [
        _question(inputs),
        *_training(inputs),
        _languages(inputs),
        _gain(inputs),
        _estimand(inputs),
        *_inference(inputs),
        inputs.plan,
        _complete(inputs),
        _computed(inputs),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _version(inputs: ReportInputs, name: str) -> str:
    """A library's versions as the runs recorded them; empty where none did."""
    found = inputs.provenance.get("versions", {}).get(name, [])
    return found if isinstance(found, str) else " and ".join(found)


def _question(inputs: ReportInputs) -> str:
    return (
        f"With xlift {_version(inputs, 'xlift')} [@xlift] we asked whether more English intermediate-task training "
        "[@phang2020] lifts low-resource languages more than high-resource ones in zero-shot transfer."
    )


def _encoder(inputs: ReportInputs) -> str:
    name, trainable = str(inputs.study["encoder"]), inputs.study["trainable"]
    cites = [key for part, key in _ENCODERS.items() if part in name.lower()]
    encoder = name + (f" [{'; '.join(f'@{key}' for key in cites)}]" if cites else "")
    layers = trainable["layers"]
    where = "" if layers is None else f" in the upper {counted(layers, 'layer')}"
    if trainable["method"] == "lora":
        return f"The encoder, {encoder}, was trained with LoRA of rank {trainable['rank']}{where} [@hu2022]"
    return f"The encoder, {encoder}, was fine-tuned{where}"


def _training(inputs: ReportInputs) -> list[str]:
    """Encoder, intermediate tasks, budgets, seeds and targets."""
    names, budgets, targets = inputs.intermediates, inputs.budgets, inputs.targets
    seeds = counted(len(inputs.study["seeds"]), "seed")
    sentences = [
        f"{_encoder(inputs)}, first on {counted(len(names), 'English intermediate task')} "
        f"({', '.join(names)}), each with {listed([budget_label(b) for b in budgets])} of the task's reference "
        f"training{_steps(inputs)} and {seeds}.",
        "Every checkpoint, and the encoder without intermediate training, was then trained on the English data of "
        f"{counted(len(targets), 'target task')} ({', '.join(targets)}){_untrained(inputs)} and scored, without "
        "further training, in every language of the target's test set.",
    ]
    offline = [target for target in targets if target.startswith(OFFLINE_PREFIX)]
    if len(offline) < len(targets):
        sentences.append("The targets that XTREME-R has were prepared and scored as there [@ruder2021].")
    if offline:
        sentences.append(f"{listed(offline)} belong to xlift's offline benchmark of names in Unicode CLDR.")
    return sentences


def _steps(inputs: ReportInputs) -> str:
    """Realised optimiser steps and examples, in parentheses; empty where no run is finished."""
    of_main = (pl.col("kind") == "intermediate") & (pl.col("arm") == MAIN)
    runs = inputs.runs.filter(of_main).group_by("intermediate", "budget").agg(pl.col("steps", "examples").max())
    found = {(name, budget): (steps, examples) for name, budget, steps, examples in runs.iter_rows()}
    if not found:
        return ""
    if len(inputs.intermediates) > MOST_LISTED:
        low, high = min(found.values()), max(found.values())
        return f" (from {low[0]:,} to {high[0]:,} optimiser steps)"
    parts = []
    for name in inputs.intermediates:
        realised = [found[name, budget] for budget in inputs.budgets if (name, budget) in found]
        if realised:
            steps, examples = ([f"{value:,}" for value in values] for values in zip(*realised, strict=True))
            parts.append(f"{name}: {listed(steps)} optimiser steps on {listed(examples)} examples")
    return f" ({'; '.join(parts)})"


def _untrained(inputs: ReportInputs) -> str:
    """Targets that are scored without training of their own."""
    trained = set(inputs.runs.filter(pl.col("kind") == "target")["target"])
    untrained = [target for target in inputs.targets if target not in trained]
    if not trained or not untrained:
        return ""
    return f", but for {listed(untrained)}, for which it was used as it was,"


def _languages(inputs: ReportInputs) -> str:
    codes = [str(code) for code in inputs.study["languages"] if code != SOURCE_LANGUAGE]
    groups = [group_of(inputs, code) for code in codes]
    measure = inputs.resource.measure
    words = {
        "low": f"low-resource (below {measure.amount(measure.low_below)})",
        "mid": "in between",
        "high": f"high-resource (from {measure.amount(measure.high_from)})",
        "unseen": "unseen in pretraining",
    }
    counts = [f"{groups.count(name)} {words[name]}" for name in STRATA if name in groups]
    cite = _MEASURES.get(inputs.study["analysis"]["resource"], "")
    return f"By resource, the {counted(len(codes), 'language')} besides English are {listed(counts)}{cite}."


def _gain(inputs: ReportInputs) -> str:
    return (
        "A gain is the score minus that of the same target, language and seed without intermediate training, in points "
        "of the target's primary metric; English is in no average."
    )


def _estimand(inputs: ReportInputs) -> str:
    return (
        "The primary estimand β is what a doubling of intermediate training adds to the gain for each standard "
        f"deviation of {inputs.resource.measure.scale}: the slope of each language's gain on log2 steps, regressed on "
        "the resource level within pairs of target and intermediate task by least squares. Low − high is the same "
        "between the two strata."
    )


def _inference(inputs: ReportInputs) -> list[str]:
    """Intervals, other methods, equivalence and multiplicity; where there are too few seeds, that there are none."""
    seeds, analysis = len(inputs.study["seeds"]), inputs.study["analysis"]
    if seeds < FEWEST_SEEDS:
        return [f"With {counted(seeds, 'seed')} there are neither intervals nor p values."]
    run = "trunk that the budgets of a seed share" if analysis["shared_trunk"] else "intermediate checkpoint"
    sentences = [
        f"Errors are clustered two ways [@cameron2011], by language and by {run}, with a correction for leverage "
        "[@bell2002] and Satterthwaite's degrees of freedom [@satterthwaite1946]; intervals have "
        f"a confidence of {inputs.confidence}.",
    ]
    methods = set(inputs.contrasts["method"])
    words = {
        "mixed": "a crossed mixed model",
        "bootstrap": f"a bootstrap over languages and runs ({analysis['bootstrap_draws']:,} draws)",
        "permutation": f"a permutation of resource levels ({analysis['permutations']:,} permutations)",
    }
    others = [words[name] for name in words if name in methods]
    if others:
        sentences.append(f"For comparison, contrasts were also estimated or tested by {listed(others)}.")
    if TOST in methods:
        sentences.append(
            "Two one-sided tests [@schuirmann1987] ask whether the effect is smaller than "
            f"{analysis['smallest_effect']:g} points per doubling and standard deviation."
        )
    sentences.append(
        "p values of the three confirmatory contrasts are adjusted by Holm's method [@holm1979], those by target, "
        "intermediate task or budget by Benjamini and Hochberg's [@benjamini1995]."
    )
    return sentences


def _complete(inputs: ReportInputs) -> str:
    grid = inputs.completeness
    whole = grid.filter(pl.col("present") & (pl.col("languages") >= pl.col("expected_languages"))).height
    collapsed = inputs.runs.filter("collapsed").height
    return (
        f"Of {counted(grid.height, 'cell')} of the grid {number(whole, 0)} are complete; of "
        f"{counted(inputs.runs.height, 'training run')} {number(collapsed, 0)} collapsed (English development score at "
        "the floor), and these are kept."
    )


def _computed(inputs: ReportInputs) -> str:
    """Hours, operations, devices and software of the training runs."""
    runs = inputs.runs
    if not runs.height:
        return ""
    hours = [f"{number(value, 2)} {kind}-hours" for kind, value in hours_by_kind(runs).items() if value is not None]
    flops = total(runs["job_flops"])
    spent = listed(
        [*hours, *([] if flops is None else [f"{number(flops / 1e15, 2)} × 10¹⁵ floating-point operations"])]
    )
    names = ("python", "torch", "transformers", "peft")
    software = [f"{name} {_version(inputs, name)}" for name in names if _version(inputs, name)]
    using = f" using {', '.join(software)}" if software else ""
    return (
        f"Training took {spent} on {listed(runs['device'].unique().sort().to_list())}{using}; energy was not measured."
    )
