rule train_target:
    input:
        settled(
            "results/{study}/target/{target}/{inter}/{budget}/seed{seed}/manifest.json",
            target_stamp,
            encoder="results/{study}/encoder/manifest.json",
            encoded=taught_tokens,
            examples=taught_examples,
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
        gpu=1,
        mem_mb=memory_of_training,
        runtime=minutes_of("train_target", cell_of),
    params:
        specification=text_of(target_stamp),
        execution=execution,
    script:
        "../scripts/train.py"
