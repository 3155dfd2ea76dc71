# No cell is scored before the plan of the analysis is there; the plan is no reason to score again. Scores of single
# cells are kept under scores/ and made anew by the job itself where they are not current.
rule score_cells:
    input:
        settled(
            "results/{study}/scores.parquet",
            scores_stamp,
            plan="results/{study}/analysis_plan.json",
        ),
        predictions=all_predictions,
        intermediates=all_intermediate_manifests,
        targets=all_target_manifests,
    output:
        scores="results/{study}/scores.parquet",
    log:
        "results/{study}/logs/score_cells.log",
    benchmark:
        "results/{study}/benchmarks/score_cells.tsv"
    localrule: True
    conda:
        "../../envs/xlift.yaml"
    threads: 4
    params:
        specification=text_of(scores_stamp),
        settings=settings,
    script:
        "../scripts/score_cells.py"


rule collect_runs:
    input:
        trunks=all_trunk_manifests,
        intermediates=all_intermediate_manifests,
        targets=all_target_manifests,
    output:
        runs="results/{study}/runs.parquet",
    log:
        "results/{study}/logs/collect_runs.log",
    benchmark:
        "results/{study}/benchmarks/collect_runs.tsv"
    localrule: True
    conda:
        "../../envs/xlift.yaml"
    params:
        specification=lambda wildcards: as_param(runs_specification(GRID)),
    script:
        "../scripts/collect_runs.py"
