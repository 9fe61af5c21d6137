"""The demo data set: clips out of packages, made and ingested."""
