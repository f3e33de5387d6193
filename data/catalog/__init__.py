"""Tables of facts with their sources and dates, and what reads them."""
