"""Samples and time: sound in, features out."""
