"""The command line: `app.py` holds the table of commands, and each command is one short file."""
