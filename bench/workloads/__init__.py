"""The workloads, one a file; `catalogue.py` lists them in the order they are played."""
