"""`python -m unscene`."""

from unscene.cli import main

raise SystemExit(main())
