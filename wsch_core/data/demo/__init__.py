"""The built-in demo set: handwritten digits in motion, the same pixels on every machine."""
