"""How fast the runtime is on this machine: a window, its stages, whole channels, and against PyTorch."""
