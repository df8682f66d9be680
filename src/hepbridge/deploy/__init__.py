"""Models at work: refining files of any size, and the demo from end to end."""
