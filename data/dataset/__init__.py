"""What a data set is on disk: shards, samples, tokens, and copies of it elsewhere."""
