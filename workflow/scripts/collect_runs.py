"""Collect what all training runs did."""

from typing import TYPE_CHECKING

from xlift.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0]):
    from xlift.jobs.score import collect_runs

    collect_runs([*snakemake.input.intermediates, *snakemake.input.targets], snakemake.output.runs)
