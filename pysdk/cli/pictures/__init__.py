"""The commands that take picture files, one file a command."""
