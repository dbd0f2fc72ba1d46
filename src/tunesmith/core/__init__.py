"""The ground floor: mistakes, records, configuration, the registry of rooms, progress and seeds.

Nothing here knows a model, a task or a metric; every other room may import it.
"""
