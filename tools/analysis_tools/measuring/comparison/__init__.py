"""Models of any config side by side: what they cost, how fast and good they are."""
