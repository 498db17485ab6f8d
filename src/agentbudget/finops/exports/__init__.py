"""Recorded spend in the formats of others: FOCUS, CloudZero, AWS Budgets."""
