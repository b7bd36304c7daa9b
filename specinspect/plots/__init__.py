"""Pictures: numbers and a size to rows of styled cells. Pure functions; the CLI and the app draw alike."""
