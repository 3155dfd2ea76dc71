"""Train one intermediate or target run."""

import json
from typing import TYPE_CHECKING

from xlift.hooks import replaced
from xlift.jobs import fast_imports, logged, start_computing

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0], snakemake.input):
    start_computing()
    if not replaced(list(snakemake.output)):
        with fast_imports():
            from xlift.jobs.train import train_job

        train_job(
            json.loads(snakemake.params.specification),
            snakemake.input.encoder,
            list(snakemake.input.encoded),
            list(snakemake.input.examples),
            snakemake.input.get("parent") or None,
            snakemake.output.manifest,
            snakemake.input.get("start") or None,
            json.loads(snakemake.params.execution),
        )
