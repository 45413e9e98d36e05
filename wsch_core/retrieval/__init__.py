"""Codes and what they retrieve: bits, exact Hamming search, tie-aware mAP@K."""
