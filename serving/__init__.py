"""Everything after the push."""
