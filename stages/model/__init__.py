"""The autoencoder: its layers, its file, and how to apply it to arrays."""
