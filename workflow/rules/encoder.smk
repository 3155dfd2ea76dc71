rule prepare_encoder:
    output:
        manifest="results/{study}/encoder/manifest.json",
    log:
        "results/{study}/logs/prepare_encoder.log",
    benchmark:
        "results/{study}/benchmarks/prepare_encoder.tsv"
    localrule: True
    conda:
        "../../envs/xlift.yaml"
    params:
        specification=as_param(GRID.encoder_specification()),
        hub_root=hub_root,
    script:
        "../scripts/prepare_encoder.py"
