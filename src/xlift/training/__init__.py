"""Training runs: exact budgets, batches of like length, checkpoints of trained weights only."""
