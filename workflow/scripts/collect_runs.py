"""Collect what all training runs did."""

import json
from typing import TYPE_CHECKING

from xlift.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0], snakemake.input):
    from xlift.jobs.score import collect_runs

    manifests = {kind: snakemake.input.get(kind, []) for kind in ("trunks", "intermediates", "targets")}
    collect_runs(json.loads(snakemake.params.specification), manifests, snakemake.output.runs)
