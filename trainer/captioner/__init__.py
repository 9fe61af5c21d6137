"""The captioner: training it, describing data sets with it or by an endpoint, scoring it."""
