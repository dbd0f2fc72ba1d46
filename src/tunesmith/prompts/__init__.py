"""Prompts: a chat template becomes tokens and loss spans, shots are chosen, and all of it fits the context.

`render.Template` is the one object through which text meets a model: training, scoring, generation and serving all
use it, and its `hash` goes with every artifact. `dialect` writes conversations as text and finds each assistant turn
in it; `shots` chooses examples to put before a query; `budget` computes how many fit and shortens what is too long.
"""
