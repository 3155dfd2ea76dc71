"""Bring the encoder into the study's folder."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from xlift.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0], snakemake.input):
    from xlift.jobs.prepare import prepare_encoder

    prepare_encoder(
        json.loads(snakemake.params.specification),
        snakemake.params.hub_root,
        Path(snakemake.output.manifest),
    )
