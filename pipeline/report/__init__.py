"""What the screen shows of a run and of a plan."""
