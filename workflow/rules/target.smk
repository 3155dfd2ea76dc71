rule train_target:
    input:
        encoder=ancient("results/{study}/encoder/manifest.json"),
        encoded=ancient("results/{study}/encoded/{target}/manifest.json"),
        examples=ancient("results/{study}/data/{target}.parquet"),
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
        specification=lambda wildcards: as_param(
            GRID.target_specification(cell_of(wildcards))
        ),
    script:
        "../scripts/train.py"
