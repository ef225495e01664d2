"""Shards, recipes, plans, pixels and the order of an epoch: what both stages share."""
