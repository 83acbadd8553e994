"""The paper's tables in miniature: plan, runs and report."""
