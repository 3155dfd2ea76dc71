"""Prepare a task's examples."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from xlift.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0], snakemake.input):
    from xlift.jobs.prepare import prepare_data

    prepare_data(
        json.loads(snakemake.params.specification),
        Path(snakemake.output.examples),
        Path(snakemake.output.manifest),
        **snakemake.params.places,
    )
