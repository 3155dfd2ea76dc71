# The study, its grid, and the helpers that rules use for inputs and params.

import re
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

from xlift.analysis import plan_to_write, study_levels
from xlift.artifacts import holds
from xlift.errors import UserError
from xlift.grid import (
    Grid,
    analysis_specification,
    as_param,
    available_cell,
    available_runs,
    execution_param,
    plan_specification,
    report_specification,
    runs_specification,
)
from xlift.languages import load_languages
from xlift.planning.requests import Requests, partition_device
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
    REQUESTS = Requests(GRID, Path("results"), partition_device(workflow))
except UserError as error:
    raise WorkflowError(str(error)) from None


EXECUTION = execution_param(STUDY)


wildcard_constraints:
    study=STUDY.study,
    task="|".join(GRID.tasks),
    length=r"[0-9]+",
    inter="|".join(re.escape(name) for name in GRID.names),
    target="|".join(STUDY.targets),
    budget="|".join(re.escape(label) for label in GRID.labels),
    seed=r"[0-9]+",


def run_of(wildcards):
    return GRID.run(wildcards.inter, wildcards.budget, wildcards.seed)


def cell_of(wildcards):
    return GRID.cell(
        wildcards.target, wildcards.inter, wildcards.budget, wildcards.seed
    )


def encode_stamp(wildcards):
    return GRID.encode_stamp(wildcards.task, int(wildcards.length))


def trunk_stamp(wildcards):
    return GRID.stamp("trunk", run_of(wildcards))


def intermediate_stamp(wildcards):
    return GRID.stamp("intermediate", run_of(wildcards))


def target_stamp(wildcards):
    return GRID.stamp("target", cell_of(wildcards))


def prediction_stamp(wildcards):
    return GRID.stamp("predict", cell_of(wildcards))


def score_stamp(wildcards):
    return GRID.stamp("score", cell_of(wildcards))


def text_of(stamp):
    """A job's specification for its params."""
    return lambda wildcards: stamp(wildcards).text


def execution(wildcards, threads):
    """Settings of speed and memory. Asking for `threads` keeps this param out of Snakemake's comparison of params."""
    return EXECUTION


def settled(output, stamp, **prepared):
    """Inputs that repeat nothing by being made again: `ancient` while `output` is what its specification asks for.

    Where it is not, they are plain ones: Snakemake looks at no params behind a job that has to run, and would take an
    `ancient` input's word that nothing changed. `prepared`: paths by name, or functions of wildcards. One function for
    all of a job's, for Snakemake spends longer on calling it than it takes.
    """

    def choose(wildcards):
        current = holds(Path(output.format(**wildcards)), stamp(wildcards).fingerprint)
        paths = {
            name: path(wildcards) if callable(path) else path
            for name, path in prepared.items()
        }
        return {
            name: ancient(path) if current else path for name, path in paths.items()
        }

    return unpack(choose)


def intermediate_examples(wildcards):
    """Prepared examples of an intermediate run's task, which a control shares with its task."""
    return f"results/{{study}}/data/{run_of(wildcards).task}.parquet"


def intermediate_tokens(wildcards):
    """Token ids of an intermediate run's task at the length of its budget."""
    run = run_of(wildcards)
    return f"results/{{study}}/encoded/{run.task}/length{run.budget.max_length}/manifest.json"


def target_tokens(wildcards):
    """Token ids of a target."""
    length = GRID.target_length(wildcards.target)
    return f"results/{{study}}/encoded/{{target}}/length{length}/manifest.json"


def trunk_before(wildcards):
    """Manifest of the state that a trunk's segment goes on from; nothing for the first."""
    return GRID.segment_start(run_of(wildcards), Path("results")) or []


def branching_state(wildcards):
    """Manifest of the trunk's state that a branch goes on from; nothing where each budget has a run of its own."""
    if STUDY.schedule != "trunk":
        return []
    return "results/{study}/trunk/{inter}/{budget}/seed{seed}/manifest.json"


def intermediate_manifest(wildcards):
    """Manifest of the intermediate run a cell starts from; nothing where there is none."""
    if not run_of(wildcards).is_run:
        return []
    return "results/{study}/intermediate/{inter}/{budget}/seed{seed}/manifest.json"


def target_manifest(wildcards):
    """Manifest of a cell's target run; nothing where the target is not trained."""
    if not STUDY.catalog[wildcards.target].trained:
        return []
    return "results/{study}/target/{target}/{inter}/{budget}/seed{seed}/manifest.json"


def last_manifest(wildcards):
    """Manifest of the last run before a cell's predictions; nothing for the untrained encoder."""
    return target_manifest(wildcards) or intermediate_manifest(wildcards)


def run_files(pattern, jobs):
    """Paths of the given runs or cells, in the grid's order."""
    return [pattern.format(study=STUDY.study, **job.wildcards) for job in jobs]


def target_manifests_of_tokens():
    """Manifests of the token ids of every target, which tell how finely each language is cut."""
    return [
        f"results/{STUDY.study}/encoded/{target}/length{GRID.target_length(target)}/manifest.json"
        for target in STUDY.targets
    ]


def predictions_at_hand(wildcards):
    """Predictions that are there and of these very settings."""
    return [
        path
        for cell in GRID.cells
        for path in run_files(
            "results/{study}/predictions/{target}/{inter}/{budget}/seed{seed}.parquet",
            [cell],
        )
        if holds(Path(path), GRID.stamp("predict", cell).fingerprint)
    ]


def cells_to_score():
    """Every cell's score specification, and the paths it is scored from."""
    return [
        available_cell(GRID, cell, Path("results") / STUDY.study) for cell in GRID.cells
    ]


def runs_to_collect():
    """Every training run by kind: its place in the grid, manifest and fingerprint."""
    return available_runs(GRID, Path("results") / STUDY.study)


def memory_of_training(wildcards, attempt):
    return REQUESTS.memory_mb(attempt)


def minutes_of(kind, job_of):
    """Minutes that a training or prediction job asks for: what its run or cell is planned to take, and more again."""
    return lambda wildcards, attempt: REQUESTS.minutes(kind, job_of(wildcards), attempt)
