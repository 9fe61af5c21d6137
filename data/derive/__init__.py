"""Data sets made of data sets: cropped, reshaped, captioned again, indexed."""
