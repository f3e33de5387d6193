"""One file a format: `read_*(handle, file, settings)` yields Documents and BadRecords, in order."""
