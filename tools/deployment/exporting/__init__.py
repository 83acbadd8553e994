"""What `tools/deployment/export.py` is made of: graph, precision, metadata, files."""
