"""The files that one step leaves for another: their names, models, readers and writers."""
