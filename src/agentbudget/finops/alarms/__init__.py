"""Alarms that page before a budget breaks: rules over spend and calls by minute, what is told to whom, and a watch."""
