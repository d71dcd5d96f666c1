"""A model's weights: found, loaded, placed on a device, and named by a fingerprint."""
