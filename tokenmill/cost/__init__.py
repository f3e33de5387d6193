"""FLOPs, memory, time and money: arithmetic on numbers and catalogs; imports nothing heavy."""
