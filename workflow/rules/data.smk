rule prepare_data:
    output:
        examples="results/{study}/data/{task}.parquet",
        manifest="results/{study}/data/{task}.json",
    log:
        "results/{study}/logs/prepare_data/{task}.log",
    benchmark:
        "results/{study}/benchmarks/prepare_data/{task}.tsv"
    conda:
        "../../envs/xlift.yaml"
    params:
        specification=lambda wildcards: as_param(
            GRID.data_specification(wildcards.task)
        ),
    script:
        "../scripts/prepare_data.py"


# Prepared examples are `ancient`: preparing them again repeats nothing unless the specification changed.
rule encode_task:
    input:
        examples=ancient("results/{study}/data/{task}.parquet"),
        encoder=ancient("results/{study}/encoder/manifest.json"),
    output:
        manifest="results/{study}/encoded/{task}/manifest.json",
    log:
        "results/{study}/logs/encode_task/{task}.log",
    benchmark:
        "results/{study}/benchmarks/encode_task/{task}.tsv"
    conda:
        "../../envs/xlift.yaml"
    params:
        specification=lambda wildcards: as_param(
            GRID.encode_specification(wildcards.task)
        ),
    script:
        "../scripts/encode_task.py"
