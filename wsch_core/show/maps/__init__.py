"""Videos laid out by their codes and features."""
