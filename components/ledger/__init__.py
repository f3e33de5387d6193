"""Step 6, ledger: effective tokens, FLOPs, memory, time, money, and the budget gate."""
