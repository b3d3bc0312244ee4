"""Holds: the credits that a request keeps reserved while it runs, and how many that are."""
