"""Real tables on which density estimators are compared at equal processor time."""
