"""The part of `ray.util` that Serve applications use."""
