from snakemake.utils import min_version

min_version("9.20")


# A study file given on the command line stands alone; only `--config` changes the default study.
if not workflow.configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/encoder.smk"
include: "workflow/rules/intermediate.smk"
include: "workflow/rules/target.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/contrast.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        f"results/{STUDY.study}/report/index.html",
