"""What the options do, on the command line and in pytest."""

HELP = {
    "max_examples": "Random traces to try for each pair, after every save point was tried (the "
    "sweep); 0 for the sweep alone.",
    "seed": "Seed of the search.",
    "time_limit": "Seconds for each pair of subject and check.",
    "all_checks": "Run the opt-in checks too.",
    "no_ledger": "Ignore all ledgers.",
    "ledger": "A file of your own known failures, in addition to the installed ledgers; "
    "repeatable.",
}
