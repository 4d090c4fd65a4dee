"""The autoencoder and the classifier: their layers, their file, and loading TensorFlow."""
