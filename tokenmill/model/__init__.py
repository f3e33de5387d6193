"""The Transformer: its shape, layers, losses, generation and the weights to start from."""
