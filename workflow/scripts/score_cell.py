"""Score a cell."""

import json
from typing import TYPE_CHECKING

from xlift.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0]):
    from xlift.jobs.score import score_cell

    score_cell(
        json.loads(snakemake.params.specification),
        snakemake.input.predictions,
        snakemake.input.get("intermediate") or None,
        snakemake.input.get("target") or None,
        snakemake.output.scores,
    )
