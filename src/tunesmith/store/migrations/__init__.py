"""How the tables came to be: `versions/` holds the steps, `env.py` runs them on the connection it is given."""
