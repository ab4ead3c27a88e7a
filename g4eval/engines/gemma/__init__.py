"""Our PyTorch backend for Gemma 3 and Gemma 4 text models; start reading at `model`."""
