"""Several devices, processes and cores: strategies, workers, and how they find each other."""
