"""How a model is trained: an epoch as one compiled call, the optimizer, checkpoints, several replicas."""
