"""A score of documents that is learned from examples: what it sees, how it is trained, who goes."""
