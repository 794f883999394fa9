"""`kappaflow tradeoff`: what bounding the condition number costs in likelihood, on a table."""
