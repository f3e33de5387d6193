"""A training planned without data: from a request to FLOPs, hours, memory and money."""
