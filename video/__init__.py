"""Pixels, latents and the network."""
