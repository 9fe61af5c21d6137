"""What a run makes of each task, on worlds with truth: measures, ceilings and floors."""
