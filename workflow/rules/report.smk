# Files beside a page: the package writes every one of them, whatever there is to draw (tests/unit/test_report.py).
FIGURES = {
    "strata": "gain against budget by stratum",
    "forest-budget": "low − high at each budget",
    "forest-doubling": "low − high per doubling of budget",
    "forest-methods": "β by target and method",
    "heat": "gain by language, intermediate task and budget",
    "slope": "gain per doubling against pretraining text",
}
TABLES = [
    *FIGURES,
    "languages",
    "contrasts",
    "methods",
    "sensitivity",
    "completeness",
    "collapsed",
    "compute",
    "run-groups",
    "runs",
]


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
        figures=[
            report(
                f"results/{{study}}/report/figures/{figure}.svg",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"study": "{study}", "figure": title},
            )
            for figure, title in FIGURES.items()
        ],
        copies=expand(
            "results/{{study}}/report/figures/{figure}.{format}",
            figure=FIGURES,
            format=["png", "vl.json"],
        ),
        tables=expand(
            "results/{{study}}/report/tables/{table}.{format}",
            table=TABLES,
            format=["csv", "parquet"],
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
        figures=expand(
            f"results/{STUDY.study}/available/figures/{{figure}}.{{format}}",
            figure=FIGURES,
            format=["svg", "png", "vl.json"],
        ),
        tables=expand(
            f"results/{STUDY.study}/available/tables/{{table}}.{{format}}",
            table=TABLES,
            format=["csv", "parquet"],
        ),
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
