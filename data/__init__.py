"""Facts with sources (hardware, published runs) and the readers of input data."""
