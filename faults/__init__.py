"""The fault suite: what happens to machines, files and numbers, done on purpose and counted."""
