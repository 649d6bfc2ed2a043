"""A page that shows what runs did, from their performance dumps."""
