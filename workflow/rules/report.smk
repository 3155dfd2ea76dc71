localrules:
    render_report,


rule render_report:
    input:
        scores="results/{study}/scores.parquet",
        gains="results/{study}/gains.parquet",
        contrasts="results/{study}/contrasts.parquet",
        runs="results/{study}/runs.parquet",
        plan="results/{study}/analysis_plan.json",
        languages="config/languages.csv",
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
    conda:
        "../../envs/xlift.yaml"
    params:
        specification=lambda wildcards: as_param(report_specification(GRID)),
    script:
        "../scripts/render_report.py"
