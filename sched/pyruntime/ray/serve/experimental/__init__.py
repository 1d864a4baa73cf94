"""Names of Ray Serve that may still change."""
