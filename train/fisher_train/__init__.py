"""PyTorch side: the FISHER student encoder, simulated machines and pre-training."""
