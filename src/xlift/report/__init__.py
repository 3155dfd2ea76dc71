"""The report: one self-contained HTML page a study, `page`, with its figures and tables."""
