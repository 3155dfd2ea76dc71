rule train_intermediate:
    input:
        encoder=settled(
            "results/{study}/encoder/manifest.json",
            "results/{study}/intermediate/{inter}/{budget}/seed{seed}/manifest.json",
            intermediate_specification,
        ),
        encoded=settled(
            "results/{study}/encoded/{inter}/manifest.json",
            "results/{study}/intermediate/{inter}/{budget}/seed{seed}/manifest.json",
            intermediate_specification,
        ),
        examples=settled(
            "results/{study}/data/{inter}.parquet",
            "results/{study}/intermediate/{inter}/{budget}/seed{seed}/manifest.json",
            intermediate_specification,
        ),
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
        specification=lambda wildcards: as_param(intermediate_specification(wildcards)),
    script:
        "../scripts/train.py"
