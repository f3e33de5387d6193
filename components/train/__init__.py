"""Step 7, train: a Transformer decoder or encoder in Keras 3, in a loop under tf.distribute."""
