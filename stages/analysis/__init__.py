"""What is measured of a trained model, with its baselines, and how it is kept."""
