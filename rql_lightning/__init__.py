"""Policy customization with residual Q-learning: a frozen policy, one more wish, nothing else."""

__version__ = "0.1.0"
