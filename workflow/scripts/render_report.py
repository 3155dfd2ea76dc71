"""Render the page."""

import json
from typing import TYPE_CHECKING

from xlift.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0], snakemake.input):
    from xlift.jobs.report import render

    render(
        json.loads(snakemake.params.specification),
        {name: snakemake.input[name] for name in ("scores", "gains", "contrasts", "runs")},
        snakemake.input.languages,
        snakemake.input.plan,
        snakemake.output.page,
    )
