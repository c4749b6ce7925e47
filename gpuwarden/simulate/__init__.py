"""A guard's policy against a card that is not there: rehearsals and what they were worth. Pure."""
