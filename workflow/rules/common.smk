# The study, its grid, and the helpers that rules use for inputs and params.

from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

from xlift.analysis import plan_to_write, study_levels
from xlift.artifacts import fingerprint, holds
from xlift.catalog import CATALOG, NONE
from xlift.errors import UserError
from xlift.grid import (
    Cell,
    Grid,
    Intermediate,
    analysis_specification,
    as_param,
    plan_specification,
    report_specification,
)
from xlift.languages import load_languages
from xlift.study import check_paths, parse_study, read_yaml, typed_overrides

# `--config` leaves the entries of lists and mappings as text.
OVERRIDES = typed_overrides(workflow.config_settings.config)
update_config(config, OVERRIDES)
STUDY_FILE = " with ".join(
    [
        *[str(file) for file in workflow.configfiles[-1:]],
        *[f"--config {key}" for key in sorted(OVERRIDES)],
    ]
)

try:
    for _file in workflow.configfiles:
        read_yaml(Path(_file))  # Snakemake's own reader lets a repeated key through.
    STUDY = parse_study(config, STUDY_FILE)
    check_paths(STUDY, STUDY_FILE)
    GRID = Grid(STUDY, STUDY_FILE)
    study_levels(STUDY, load_languages(Path("config/languages.csv")))
    # Once there are scores, the plan of the analysis is the one that is there, whatever the settings are now.
    PLAN = plan_to_write(plan_specification(GRID), Path("results") / STUDY.study)
except UserError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    study=STUDY.study,
    task="|".join(GRID.tasks),
    inter="|".join([NONE, *STUDY.intermediates]),
    target="|".join(STUDY.targets),
    budget=r"x[0-9][0-9.e+-]*",
    seed=r"[0-9]+",


def run_of(wildcards):
    return Intermediate(
        wildcards.inter,
        float(wildcards.budget.removeprefix("x")),
        int(wildcards.seed),
    )


def cell_of(wildcards):
    return Cell(wildcards.target, run_of(wildcards))


def encode_specification(wildcards):
    return GRID.encode_specification(wildcards.task)


def intermediate_specification(wildcards):
    return GRID.intermediate_specification(run_of(wildcards))


def target_specification(wildcards):
    return GRID.target_specification(cell_of(wildcards))


def prediction_specification(wildcards):
    return GRID.prediction_specification(cell_of(wildcards))


def score_specification(wildcards):
    return GRID.score_specification(cell_of(wildcards))


def settled(pattern, output, specification):
    """Input that repeats nothing by being made again: `ancient` while `output` is what `specification` asks for.

    Where it is not, the input is a plain one: Snakemake looks at no params behind a job that has to run, and would
    take an `ancient` input's word that nothing changed.
    """

    def choose(wildcards):
        wanted = specification(wildcards)
        current = holds(Path(output.format(**wildcards)), fingerprint(wanted))
        return ancient(pattern) if current else pattern

    return choose


def intermediate_manifest(wildcards):
    """Manifest of the intermediate run a cell starts from; nothing for the baseline."""
    if wildcards.inter == NONE:
        return []
    return "results/{study}/intermediate/{inter}/{budget}/seed{seed}/manifest.json"


def target_manifest(wildcards):
    """Manifest of a cell's target run; nothing where the target is not trained."""
    if not CATALOG[wildcards.target].trained:
        return []
    return "results/{study}/target/{target}/{inter}/{budget}/seed{seed}/manifest.json"


def last_manifest(wildcards):
    """Manifest of the last run before a cell's predictions; nothing for the untrained encoder."""
    return target_manifest(wildcards) or intermediate_manifest(wildcards)


def cell_files(pattern, cells):
    """Paths of the given cells, in the grid's order."""
    return [pattern.format(study=STUDY.study, **cell.wildcards) for cell in cells]


def target_manifests_of_tokens():
    """Manifests of the token ids of every target, which tell how finely each language is cut."""
    return [
        f"results/{STUDY.study}/encoded/{target}/manifest.json"
        for target in STUDY.targets
    ]


def memory_of_training(wildcards, attempt):
    return 3000 * attempt
