"""Run folders: what a run was, what it left, and a notebook's parameters."""
