"""What a fleet of workers does while a model's provider limits or fails, by command."""
