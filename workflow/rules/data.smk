rule prepare_data:
    output:
        examples="results/{study}/data/{task}.parquet",
        manifest="results/{study}/data/{task}.json",
    log:
        "results/{study}/logs/prepare_data/{task}.log",
    benchmark:
        "results/{study}/benchmarks/prepare_data/{task}.tsv"
    localrule: True
    conda:
        "../../envs/xlift.yaml"
    params:
        specification=lambda wildcards: as_param(
            GRID.data_specification(wildcards.task)
        ),
        places=data_places,
    script:
        "../scripts/prepare_data.py"


# Preparing data or the encoder again repeats nothing unless the specification changed: see `settled`.
rule encode_task:
    input:
        settled(
            "results/{study}/encoded/{task}/length{length}/manifest.json",
            encode_stamp,
            examples="results/{study}/data/{task}.parquet",
            encoder="results/{study}/encoder/manifest.json",
        ),
    output:
        manifest="results/{study}/encoded/{task}/length{length}/manifest.json",
    log:
        "results/{study}/logs/encode_task/{task}/length{length}.log",
    benchmark:
        "results/{study}/benchmarks/encode_task/{task}/length{length}.tsv"
    localrule: True
    conda:
        "../../envs/xlift.yaml"
    params:
        specification=text_of(encode_stamp),
    script:
        "../scripts/encode_task.py"
