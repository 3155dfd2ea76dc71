rule train_target:
    input:
        encoder=settled(
            "results/{study}/encoder/manifest.json",
            "results/{study}/target/{target}/{inter}/{budget}/seed{seed}/manifest.json",
            target_specification,
        ),
        encoded=settled(
            "results/{study}/encoded/{target}/manifest.json",
            "results/{study}/target/{target}/{inter}/{budget}/seed{seed}/manifest.json",
            target_specification,
        ),
        examples=settled(
            "results/{study}/data/{target}.parquet",
            "results/{study}/target/{target}/{inter}/{budget}/seed{seed}/manifest.json",
            target_specification,
        ),
        parent=intermediate_manifest,
    output:
        manifest="results/{study}/target/{target}/{inter}/{budget}/seed{seed}/manifest.json",
        weights="results/{study}/target/{target}/{inter}/{budget}/seed{seed}/weights.safetensors",
    log:
        "results/{study}/logs/train_target/{target}/{inter}/{budget}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/train_target/{target}/{inter}/{budget}/seed{seed}.tsv"
    conda:
        "../../envs/xlift.yaml"
    threads: STUDY.training.threads
    resources:
        mem_mb=memory_of_training,
    params:
        specification=lambda wildcards: as_param(target_specification(wildcards)),
    script:
        "../scripts/train.py"
