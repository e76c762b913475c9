"""One package per stage: `nodes.py` turns tables into tables, `pipeline.py` wires them."""
