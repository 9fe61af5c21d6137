"""How much compute the better of two recipes, architectures or data sets is worth."""
