"""WSCH as published, and what is varied of it."""
