"""What autoencoders are good for: anomalies, denoising, few labels, generation."""
