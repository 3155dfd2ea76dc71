rule predict_cell:
    input:
        settled(
            "results/{study}/predictions/{target}/{inter}/{budget}/seed{seed}.parquet",
            prediction_stamp,
            encoder="results/{study}/encoder/manifest.json",
            encoded=target_tokens,
            examples="results/{study}/data/{target}.parquet",
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
        gpu=1,
        mem_mb=memory_of_training,
        runtime=minutes_of("predict_cell", cell_of),
    params:
        specification=text_of(prediction_stamp),
    script:
        "../scripts/predict_cell.py"
