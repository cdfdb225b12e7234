"""Data, losses and recipes of the models; nobody imports it."""
