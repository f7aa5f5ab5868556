"""How fast the library is: one command a question, each against a plain reference in the same run. See README.md."""
