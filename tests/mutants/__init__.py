"""Typical wrong answers to the exercises of a notebook, and a piece of the sentence that each must get.

`MUTANTS["1.2"]` is a list of (what is wrong, what of the solution becomes what, a regular expression of the answer): a
mutant is the committed solution with these pieces replaced, each of which must be there.
"""
