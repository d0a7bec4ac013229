"""The command line: one file per sub-command; each parses, calls and prints."""
