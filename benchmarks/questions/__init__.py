"""The questions: a file here is one of them. `ceilings.py` has what they are compared with."""
