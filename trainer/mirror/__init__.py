"""W&B follows metrics.jsonl from a process of its own: it can fail, the run cannot."""
