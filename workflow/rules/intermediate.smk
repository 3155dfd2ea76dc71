rule train_intermediate:
    input:
        encoder=ancient("results/{study}/encoder/manifest.json"),
        encoded=ancient("results/{study}/encoded/{inter}/manifest.json"),
        examples=ancient("results/{study}/data/{inter}.parquet"),
    output:
        manifest="results/{study}/intermediate/{inter}/{budget}/seed{seed}/manifest.json",
        weights="results/{study}/intermediate/{inter}/{budget}/seed{seed}/weights.safetensors",
    log:
        "results/{study}/logs/train_intermediate/{inter}/{budget}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/train_intermediate/{inter}/{budget}/seed{seed}.tsv"
    conda:
        "../../envs/xlift.yaml"
    threads: STUDY.training.threads
    resources:
        mem_mb=memory_of_training,
    params:
        specification=lambda wildcards: as_param(
            GRID.intermediate_specification(run_of(wildcards))
        ),
    script:
        "../scripts/train.py"
