"""Collect the scores of all cells."""

from typing import TYPE_CHECKING

from xlift.jobs import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logged(snakemake.log[0]):
    from xlift.jobs.score import collect_scores

    collect_scores(list(snakemake.input.cells), snakemake.output.scores)
