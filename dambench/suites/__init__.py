"""Suites: whole tables as data, each a file in the form of a sweep."""
