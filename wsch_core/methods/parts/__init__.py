"""What several methods are made of: layers, k-means, lists and graphs of similar videos."""
