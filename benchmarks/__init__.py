"""How fast the library is: one command a question, each against a plain reference in the same run. See README.md."""

from unscene.cli.main import set_process_up

set_process_up()  # as the command line does, before PyTorch is imported
