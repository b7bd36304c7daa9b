"""Two checkpoints side by side: the same layers before and after."""
