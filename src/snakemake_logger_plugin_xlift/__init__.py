"""How Snakemake finds xlift's live lines: a package of this name with a `LogHandler` (`snakemake --logger xlift`)."""

from xlift.live import LogHandler

__all__ = ["LogHandler"]
