localrules:
    score_cell,
    collect_scores,
    collect_runs,


# No cell is scored before the plan of the analysis is there; the plan is no reason to score again.
rule score_cell:
    input:
        settled(
            "results/{study}/scores/{target}/{inter}/{budget}/seed{seed}.parquet",
            score_stamp,
            plan="results/{study}/analysis_plan.json",
        ),
        predictions="results/{study}/predictions/{target}/{inter}/{budget}/seed{seed}.parquet",
        intermediate=intermediate_manifest,
        target=target_manifest,
    output:
        scores="results/{study}/scores/{target}/{inter}/{budget}/seed{seed}.parquet",
    log:
        "results/{study}/logs/score_cell/{target}/{inter}/{budget}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/score_cell/{target}/{inter}/{budget}/seed{seed}.tsv"
    conda:
        "../../envs/xlift.yaml"
    params:
        specification=text_of(score_stamp),
    script:
        "../scripts/score_cell.py"


rule collect_scores:
    input:
        cells=run_files(
            "results/{study}/scores/{target}/{inter}/{budget}/seed{seed}.parquet",
            GRID.cells,
        ),
    output:
        scores="results/{study}/scores.parquet",
    log:
        "results/{study}/logs/collect_scores.log",
    benchmark:
        "results/{study}/benchmarks/collect_scores.tsv"
    conda:
        "../../envs/xlift.yaml"
    script:
        "../scripts/collect_scores.py"


rule collect_runs:
    input:
        trunks=run_files(
            "results/{study}/trunk/{inter}/{budget}/seed{seed}/manifest.json",
            GRID.segments,
        ),
        intermediates=run_files(
            "results/{study}/intermediate/{inter}/{budget}/seed{seed}/manifest.json",
            GRID.intermediates,
        ),
        targets=run_files(
            "results/{study}/target/{target}/{inter}/{budget}/seed{seed}/manifest.json",
            GRID.target_runs(),
        ),
    output:
        runs="results/{study}/runs.parquet",
    log:
        "results/{study}/logs/collect_runs.log",
    benchmark:
        "results/{study}/benchmarks/collect_runs.tsv"
    conda:
        "../../envs/xlift.yaml"
    params:
        specification=as_param(runs_specification(GRID)),
    script:
        "../scripts/collect_runs.py"
