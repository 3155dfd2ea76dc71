# The study, its grid, and the helpers that rules use for inputs and params.

import gc
import inspect
import re
from pathlib import Path

from snakemake.common import overwrite_function_params
from snakemake.exceptions import WorkflowError
from snakemake.resources import Resource
from snakemake.utils import update_config

from xlift.analysis import plan_to_write, study_levels
from xlift.artifacts import check_writable, holds
from xlift.errors import UserError
from xlift.grid import (
    Grid,
    analysis_specification,
    as_param,
    execution_param,
    plan_specification,
    report_specification,
    runs_specification,
)
from xlift.languages import load_languages
from xlift.planning.requests import Requests, partition_device
from xlift.study import check_paths, parse_study, read_yaml, typed_overrides

# As a module of another workflow, xlift has its configuration from there, and its rules go by other names. Files and
# `--config` of that workflow are the study's only where its whole configuration is.
MODULE = workflow.modifier.namespace
IS_WHOLE = MODULE is None or config is workflow.modifier_stack[0].globals["config"]
# `--config` leaves the entries of lists and mappings as text.
OVERRIDES = typed_overrides(workflow.config_settings.config) if IS_WHOLE else {}
update_config(config, OVERRIDES)
FILES = [Path(file) for file in workflow.configfiles] if IS_WHOLE else []
STUDY_FILE = " with ".join(
    [
        *([str(file) for file in FILES] or [f"config of module {MODULE}"]),
        *[f"--config {key}" for key in sorted(OVERRIDES)],
    ]
)
# The working folder's own table of languages, or else the one beside these rules.
LANGUAGES = "config/languages.csv"
if not Path(LANGUAGES).exists():
    LANGUAGES = workflow.source_path("../../config/languages.csv")

try:
    if workflow.modifier.path_modifier.replace_prefix("results/") != "results/":
        raise UserError(
            f"module {MODULE}: its results cannot be moved by prefix or replace_prefix, for xlift looks into them before "
            "any job runs; remove it, and tell studies apart by their names"
        )
    for _file in FILES:
        read_yaml(_file)  # Snakemake's own reader lets a repeated key through.
    STUDY = parse_study(config, STUDY_FILE)
    check_paths(STUDY, STUDY_FILE)
    GRID = Grid(STUDY, STUDY_FILE)
    study_levels(STUDY, load_languages(Path(LANGUAGES)))
    # Once there are scores, the plan of the analysis is the one that is there, whatever the settings are now.
    PLAN = plan_to_write(plan_specification(GRID), Path("results") / STUDY.study)
    REQUESTS = Requests(GRID, Path("results"), partition_device(workflow))
except UserError as error:
    raise WorkflowError(str(error)) from None


EXECUTION = execution_param(STUDY)

# Python looks for garbage each time 700 objects are new, and goes through all that are there as they grow. The jobs of
# a large grid are millions of objects that stay until the end, and what a job computes is in another process: looking
# less often costs no memory to speak of.
gc.freeze()
gc.set_threshold(100_000, 20, 50)


def told(function):
    """A function whose parameters Snakemake is told once; else it inspects the function for every job."""
    overwrite_function_params(function, inspect.signature(function).parameters)
    return function


# What Snakemake asks each resource of each job, and would inspect as often: an eighth of a large dry-run.
told(Resource.evaluate)


def without_default_limit(scheduler):
    """Take Snakemake's default of at most 100 starts a second away; a limit that was asked for stays.

    It is no limit here, and costs: under any limit the scheduler looks at all ready jobs again each such second, once
    for every job that has ended by then (Snakemake's pull request 3744).
    """
    limit = scheduler.job_rate_limiter
    if limit is not None and (limit.max_jobs, limit.timespan) == (100, 1):
        scheduler.job_rate_limiter = None


# Not while the file is read: a dry-run writes nothing.
onstart:
    without_default_limit(workflow.scheduler)
    try:
        check_writable(Path("results") / STUDY.study)
    except UserError as error:
        raise WorkflowError(str(error)) from None


wildcard_constraints:
    study=STUDY.study,
    task="|".join(re.escape(task) for task in GRID.tasks),
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


def scores_stamp(wildcards):
    return GRID.scores_stamp


def text_of(stamp):
    """A job's specification for its params."""
    return told(lambda wildcards: stamp(wildcards).text)


@told
def execution(wildcards, output):
    """Settings of speed and memory. Asking for `output` keeps this param out of Snakemake's comparison of params."""
    return EXECUTION


@told
def data_places(wildcards, output):
    """Where data is read from, which repeats nothing by being moved (see `execution`)."""
    return {"hub_root": STUDY.data.root, "folders": dict(STUDY.data.folders)}


@told
def hub_root(wildcards, output):
    """The folder of hub repositories that the encoder is read from: not compared either."""
    return STUDY.data.root


@told
def settings(wildcards, output):
    """The study file's settings, for a job that makes the grid of them again: not compared either, like `execution`."""
    return as_param(config)


def settled(output, stamp, **prepared):
    """Inputs that repeat nothing by being made again: `ancient` while `output` is what its specification asks for.

    Where it is not, they are plain ones: Snakemake looks at no params behind a job that has to run, and would take an
    `ancient` input's word that nothing changed. `prepared`: paths or lists of them by name, or functions of wildcards.
    One function for all of a job's, for Snakemake spends longer on calling it than it takes.
    """

    def choose(wildcards):
        current = holds(Path(output.format(**wildcards)), stamp(wildcards).fingerprint)
        paths = {
            name: path(wildcards) if callable(path) else path
            for name, path in prepared.items()
        }
        # `ancient` of a list marks each of its paths.
        return {
            name: ancient(path) if current else path for name, path in paths.items()
        }

    return unpack(told(choose))


def examples_of(sets):
    """Prepared examples of each set that a run is trained on."""
    return [f"results/{{study}}/data/{task}.parquet" for task, _ in sets]


def tokens_of(sets):
    """Token ids of each set that a run is trained on."""
    return [
        f"results/{{study}}/encoded/{task}/length{length}/manifest.json"
        for task, length in sets
    ]


@told
def intermediate_examples(wildcards):
    """Examples of an intermediate run's task, or of each part; a control without content has its task's."""
    return examples_of(GRID.run_sets(run_of(wildcards)))


@told
def intermediate_tokens(wildcards):
    """Token ids of an intermediate run's task, or of each part, at the length of its budget."""
    return tokens_of(GRID.run_sets(run_of(wildcards)))


@told
def taught_examples(wildcards):
    """Examples that a target is trained on: its own, or those of each stage."""
    return examples_of(GRID.target_sets(wildcards.target))


@told
def taught_tokens(wildcards):
    """Token ids of what a target is trained on."""
    return tokens_of(GRID.target_sets(wildcards.target))


@told
def target_tokens(wildcards):
    """Token ids of a target."""
    length = GRID.target_length(wildcards.target)
    return f"results/{{study}}/encoded/{{target}}/length{length}/manifest.json"


@told
def trunk_before(wildcards):
    """Manifest of the state that a trunk's segment goes on from; nothing for the first."""
    return GRID.segment_start(run_of(wildcards), Path("results")) or []


@told
def branching_state(wildcards):
    """Manifest of the trunk's state that a branch goes on from; nothing where each budget has a run of its own."""
    if STUDY.schedule != "trunk":
        return []
    return "results/{study}/trunk/{inter}/{budget}/seed{seed}/manifest.json"


@told
def intermediate_manifest(wildcards):
    """Manifest of the intermediate run a cell starts from; nothing where there is none."""
    if not run_of(wildcards).is_run:
        return []
    return "results/{study}/intermediate/{inter}/{budget}/seed{seed}/manifest.json"


@told
def target_manifest(wildcards):
    """Manifest of a cell's target run; nothing where the target is not trained."""
    if not STUDY.catalog[wildcards.target].trained:
        return []
    return "results/{study}/target/{target}/{inter}/{budget}/seed{seed}/manifest.json"


@told
def last_manifest(wildcards):
    """Manifest of the last run before a cell's predictions; nothing for the untrained encoder."""
    return target_manifest(wildcards) or intermediate_manifest(wildcards)


def run_files(pattern, jobs):
    """Paths of the given runs or cells, in the grid's order."""
    return [pattern.format(study=STUDY.study, **job.wildcards) for job in jobs]


# Functions: a job on another machine reads this file too, and needs none of these.
@told
def all_predictions(wildcards):
    return run_files(
        "results/{study}/predictions/{target}/{inter}/{budget}/seed{seed}.parquet",
        GRID.cells,
    )


@told
def all_trunk_manifests(wildcards):
    return run_files(
        "results/{study}/trunk/{inter}/{budget}/seed{seed}/manifest.json",
        GRID.segments,
    )


@told
def all_intermediate_manifests(wildcards):
    return run_files(
        "results/{study}/intermediate/{inter}/{budget}/seed{seed}/manifest.json",
        GRID.intermediates,
    )


@told
def all_target_manifests(wildcards):
    return run_files(
        "results/{study}/target/{target}/{inter}/{budget}/seed{seed}/manifest.json",
        GRID.target_runs(),
    )


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


@told
def memory_of_training(wildcards, attempt):
    return REQUESTS.memory_mb(attempt)


def minutes_of(kind, job_of):
    """Minutes that a training or prediction job asks for: what its run or cell is planned to take, and more again."""
    return told(
        lambda wildcards, attempt: REQUESTS.minutes(kind, job_of(wildcards), attempt)
    )
