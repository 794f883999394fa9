"""The fault suite: faults of machines, files and numbers, caused on purpose and counted."""
