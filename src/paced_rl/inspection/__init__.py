"""Reading experiments that lie on disk: what is up to date, where two of them differ, whether one comes out again."""
