"""The default runner: a node runs only when something it depends on has changed."""

from paced_rl.runner.caching import CachingRunner
from paced_rl.runner.records import explain

__all__ = ["CachingRunner", "explain"]
