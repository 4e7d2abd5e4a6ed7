"""The libraries we stand beside, one adapter each."""
