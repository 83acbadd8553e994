"""Models of any config side by side: cost, speed and scores."""
