"""Task families: how examples become token sequences, a loss, and predictions again."""
