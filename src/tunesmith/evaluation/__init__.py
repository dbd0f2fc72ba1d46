"""Evaluation: how good an answer is, what a tuned model forgot, and the pages that show it."""
