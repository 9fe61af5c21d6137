"""Which question: many runs in, one law out."""
