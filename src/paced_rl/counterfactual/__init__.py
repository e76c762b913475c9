"""Every selector and estimator on the cached rounds of an experiment: tables in, tables, figure and report out."""
