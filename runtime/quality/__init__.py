"""The field's measures, the sensor's low-pass, and the classical methods, in NumPy."""
