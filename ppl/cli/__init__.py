"""The command line: `ppl check|fmt|explain|fit|sample`. Start at `main`."""
