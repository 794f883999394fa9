"""The rules: each is a function of what was measured, and yields findings."""
