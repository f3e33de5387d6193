"""`tokenmill plan`: from flags to a request of the planner."""
