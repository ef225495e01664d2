"""Stored views again, in order and checked: what a trainer is fed. There is no training in it."""
