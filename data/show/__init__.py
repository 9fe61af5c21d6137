"""What a person sees of a data set: its page, its report, progress."""
