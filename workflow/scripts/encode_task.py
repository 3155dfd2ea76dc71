"""Turn a task's examples into token ids."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from xlift.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0], snakemake.input):
    from xlift.jobs.prepare import encode_task

    encode_task(
        json.loads(snakemake.params.specification),
        Path(snakemake.input.examples),
        Path(snakemake.input.encoder).parent,
        Path(snakemake.output.manifest),
    )
