"""Names that applications reach for although they are marked private in Ray."""
