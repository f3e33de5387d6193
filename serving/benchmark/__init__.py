"""Standard scores of a pushed model: lm-evaluation-harness against the gateway."""
