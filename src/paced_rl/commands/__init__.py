"""The subcommands of `kedro paced`; each imports what it needs only when it runs."""
