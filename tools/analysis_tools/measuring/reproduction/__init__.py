"""The paper's tables in miniature: what is trained, how runs are kept, the report."""
