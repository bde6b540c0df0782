"""Exercises that check themselves: what the cells below an exercise ask, and what they say to a wrong answer."""
