"""Estimate gains and contrasts."""

import json
from typing import TYPE_CHECKING

from xlift.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0], snakemake.input):
    from xlift.jobs.report import estimate

    estimate(
        json.loads(snakemake.params.specification),
        snakemake.input.scores,
        snakemake.input.languages,
        list(snakemake.input.encoded),
        snakemake.output.gains,
        snakemake.output.contrasts,
    )
