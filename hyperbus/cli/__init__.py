"""The command line: arguments in, one call of what does the work, output out."""
