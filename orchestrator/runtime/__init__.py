"""Running one attempt, and the one lifecycle that all loops share."""
