"""Sources in, a data set out: parts, children, duplicates; an interrupt loses one part."""
