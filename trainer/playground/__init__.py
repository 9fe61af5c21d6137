"""A page that draws with one or several trained runs, side by side."""
