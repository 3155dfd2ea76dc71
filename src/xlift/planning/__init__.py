"""What a study would cost: its jobs, what each takes, and how long they take together. Without torch."""
