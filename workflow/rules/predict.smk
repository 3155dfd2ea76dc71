rule predict_cell:
    input:
        encoder=settled(
            "results/{study}/encoder/manifest.json",
            "results/{study}/predictions/{target}/{inter}/{budget}/seed{seed}.parquet",
            prediction_specification,
        ),
        encoded=settled(
            "results/{study}/encoded/{target}/manifest.json",
            "results/{study}/predictions/{target}/{inter}/{budget}/seed{seed}.parquet",
            prediction_specification,
        ),
        examples=settled(
            "results/{study}/data/{target}.parquet",
            "results/{study}/predictions/{target}/{inter}/{budget}/seed{seed}.parquet",
            prediction_specification,
        ),
        model=last_manifest,
    output:
        predictions="results/{study}/predictions/{target}/{inter}/{budget}/seed{seed}.parquet",
    log:
        "results/{study}/logs/predict_cell/{target}/{inter}/{budget}/seed{seed}.log",
    benchmark:
        "results/{study}/benchmarks/predict_cell/{target}/{inter}/{budget}/seed{seed}.tsv"
    conda:
        "../../envs/xlift.yaml"
    threads: STUDY.training.threads
    resources:
        mem_mb=memory_of_training,
    params:
        specification=lambda wildcards: as_param(prediction_specification(wildcards)),
    script:
        "../scripts/predict_cell.py"
