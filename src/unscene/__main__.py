"""`python -m unscene`."""

from unscene.cli.main import main

raise SystemExit(main())
