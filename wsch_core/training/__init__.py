"""One loop over the passes of a method, and what it needs: device, progress, checkpoints."""
