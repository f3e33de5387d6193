"""What became of a document, by its id and by the row that holds it."""
