"""Kedro datasets that replace a file or a folder as a whole or not at all, with equal bytes for equal content."""
