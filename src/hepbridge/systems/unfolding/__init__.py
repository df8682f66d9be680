"""Unfolding: what events were, from what a detector saw of them."""
