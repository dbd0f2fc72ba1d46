"""The steps, numbered; each file's number is its revision, and the highest is what this version of Tunesmith needs."""
