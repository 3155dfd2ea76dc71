rule predict_cell:
    input:
        encoder=ancient("results/{study}/encoder/manifest.json"),
        encoded=ancient("results/{study}/encoded/{target}/manifest.json"),
        examples=ancient("results/{study}/data/{target}.parquet"),
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
        specification=lambda wildcards: as_param(
            GRID.prediction_specification(cell_of(wildcards))
        ),
    script:
        "../scripts/predict_cell.py"
