"""Predict a cell in every language."""

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
            from xlift.jobs.predict import predict_job

        predict_job(
            json.loads(snakemake.params.specification),
            snakemake.input.encoder,
            snakemake.input.encoded,
            snakemake.input.examples,
            snakemake.input.get("model") or None,
            snakemake.output.predictions,
        )
