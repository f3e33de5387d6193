"""Step 7, train: a decoder-only Transformer in Keras 3, in a custom loop under tf.distribute."""
