"""Step-Audio 2 in PyTorch and the engine that serves it. Knows tensors and sessions, nothing of calls."""
