"""ML Metadata: the store, the runs of an output directory, lineage, what can be deleted."""
