"""Gains over the baseline, and low- versus high-resource contrasts with their uncertainty."""
