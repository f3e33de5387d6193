"""Tables and lines that the screen shows of a run and of a plan."""
