rule render_report:
    input:
        scores="results/{study}/scores.parquet",
        gains="results/{study}/gains.parquet",
        contrasts="results/{study}/contrasts.parquet",
        runs="results/{study}/runs.parquet",
        plan="results/{study}/analysis_plan.json",
        languages=LANGUAGES,
    output:
        page=report(
            "results/{study}/report/index.html",
            caption="../report/page.rst",
            category="Answer",
            labels={"study": "{study}"},
        ),
    log:
        "results/{study}/logs/render_report.log",
    benchmark:
        "results/{study}/benchmarks/render_report.tsv"
    localrule: True
    conda:
        "../../envs/xlift.yaml"
    params:
        specification=lambda wildcards: as_param(report_specification(GRID)),
    script:
        "../scripts/render_report.py"


# Asked for by its name, never by `all`: the page of the cells that are there, which names those that are missing.
rule report_available:
    input:
        predictions=predictions_at_hand,
        plan=f"results/{STUDY.study}/analysis_plan.json",
        languages=LANGUAGES,
        encoded=ancient(target_manifests_of_tokens()),
    output:
        page=f"results/{STUDY.study}/available/index.html",
        scores=f"results/{STUDY.study}/available/scores.parquet",
        runs=f"results/{STUDY.study}/available/runs.parquet",
        gains=f"results/{STUDY.study}/available/gains.parquet",
        contrasts=f"results/{STUDY.study}/available/contrasts.parquet",
    log:
        f"results/{STUDY.study}/logs/report_available.log",
    benchmark:
        f"results/{STUDY.study}/benchmarks/report_available.tsv"
    localrule: True
    conda:
        "../../envs/xlift.yaml"
    threads: 4
    params:
        specification=lambda wildcards: as_param(report_specification(GRID)),
        settings=settings,
    script:
        "../scripts/report_available.py"
