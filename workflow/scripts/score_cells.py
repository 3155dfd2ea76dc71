"""Score all cells."""

import json
from typing import TYPE_CHECKING

from xlift.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0], snakemake.input):
    from xlift.jobs.cells import score_cells

    score_cells(
        json.loads(snakemake.params.specification),
        json.loads(snakemake.params.settings),
        snakemake.output.scores,
        snakemake.threads,
    )
