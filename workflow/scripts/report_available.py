"""Report the cells that are there."""

import json
from typing import TYPE_CHECKING

from xlift.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0], snakemake.input):
    from xlift.jobs.available import report_available

    report_available(
        json.loads(snakemake.params.specification),
        json.loads(snakemake.params.settings),
        snakemake.input.languages,
        list(snakemake.input.encoded),
        snakemake.input.plan,
        dict(snakemake.output.items()),
        snakemake.threads,
    )
