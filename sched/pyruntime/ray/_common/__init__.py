"""Of Ray, what tests of applications use."""
