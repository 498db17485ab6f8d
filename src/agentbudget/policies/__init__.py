"""Pure rules: from balances and a proposed call to a verdict. No clock, no ledger, no framework."""
