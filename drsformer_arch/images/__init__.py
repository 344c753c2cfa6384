"""Pictures and videos in and out: depth, colour, alpha, profiles and notes stay as they were."""
