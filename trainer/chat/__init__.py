"""Language models behind an endpoint or in a package."""
