"""What turns pictures into features: the demo network, EfficientNet-Lite0, and Hugging Face models."""
