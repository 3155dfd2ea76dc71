"""Write the plan of the analysis."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from xlift.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0], snakemake.input):
    from xlift.analysis import write_plan

    write_plan(json.loads(snakemake.params.plan), Path(snakemake.output.plan).parent)
