"""What prepare, train, evaluate, compare and figures share."""
