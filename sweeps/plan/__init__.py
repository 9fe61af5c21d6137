"""Before anything starts: the runs of a study with their size, length, time, money and disk."""
