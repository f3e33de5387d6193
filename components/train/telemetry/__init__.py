"""What a training tells of itself: phases, metrics.jsonl, TensorBoard."""
