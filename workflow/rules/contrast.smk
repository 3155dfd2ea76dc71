rule plan_analysis:
    output:
        plan="results/{study}/analysis_plan.json",
    log:
        "results/{study}/logs/plan_analysis.log",
    benchmark:
        "results/{study}/benchmarks/plan_analysis.tsv"
    localrule: True
    conda:
        "../../envs/xlift.yaml"
    params:
        plan=as_param(PLAN),
    script:
        "../scripts/plan_analysis.py"


rule estimate_contrasts:
    input:
        scores="results/{study}/scores.parquet",
        languages=LANGUAGES,
        encoded=ancient(target_manifests_of_tokens()),
    output:
        gains="results/{study}/gains.parquet",
        contrasts="results/{study}/contrasts.parquet",
    log:
        "results/{study}/logs/estimate_contrasts.log",
    benchmark:
        "results/{study}/benchmarks/estimate_contrasts.tsv"
    localrule: True
    conda:
        "../../envs/xlift.yaml"
    params:
        specification=lambda wildcards: as_param(analysis_specification(GRID)),
    script:
        "../scripts/estimate_contrasts.py"
