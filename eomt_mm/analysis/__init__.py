"""What can be said of a network without training it."""

from .flops import count_operations
from .networks import Complexity, complexity_of, find_config

__all__ = ['Complexity', 'complexity_of', 'count_operations', 'find_config']
