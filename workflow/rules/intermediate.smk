# A trunk's segment ends at a budget's branching point and begins at that of the next smaller budget.
rule train_trunk:
    input:
        settled(
            "results/{study}/trunk/{inter}/{budget}/seed{seed}/manifest.json",
            trunk_stamp,
            encoder="results/{study}/encoder/manifest.json",
            encoded=intermediate_tokens,
            examples=intermediate_examples,
        ),
        start=trunk_before,
    output:
        manifest="results/{study}/trunk/{inter}/{budget}/seed{seed}/manifest.json",
        state="results/{study}/trunk/{inter}/{budget}/seed{seed}/state.safetensors",
    log:
        "results/{study}/logs/train_trunk/{inter}/{budget}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/train_trunk/{inter}/{budget}/seed{seed}.tsv"
    conda:
        "../../envs/xlift.yaml"
    threads: STUDY.training.threads
    resources:
        gpu=1,
        mem_mb=memory_of_training,
        runtime=minutes_of("train_trunk", run_of),
    params:
        specification=text_of(trunk_stamp),
        execution=execution,
    script:
        "../scripts/train.py"


rule train_intermediate:
    input:
        settled(
            "results/{study}/intermediate/{inter}/{budget}/seed{seed}/manifest.json",
            intermediate_stamp,
            encoder="results/{study}/encoder/manifest.json",
            encoded=intermediate_tokens,
            examples=intermediate_examples,
        ),
        start=branching_state,
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
        gpu=1,
        mem_mb=memory_of_training,
        runtime=minutes_of("train_intermediate", run_of),
    params:
        specification=text_of(intermediate_stamp),
        execution=execution,
    script:
        "../scripts/train.py"
