"""Studies of emergence: abilities against compute, each beside a lawless twin."""
