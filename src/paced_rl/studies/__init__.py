"""Studies: a grid of arms times seeds, run as ordinary experiments and read together at the end."""
