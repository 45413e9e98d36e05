"""What codes retrieve: a gallery to click through, and the same as a page."""
