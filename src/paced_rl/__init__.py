"""PACED-RL: RL with verifiable rewards, in which a learned partition function paces the curriculum."""

__version__ = "0.1.0"
