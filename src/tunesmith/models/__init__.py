"""Models by name: a catalogue name, hub id, folder or .gguf file becomes a folder on this machine, then a model.

`load.load(name)` is the front door; `source.fetch(name)` only brings the folder; `info.info(name)` describes a model
without its weights; `save.save_model` writes a whole model. Weights are read from safetensors, never from pickles
unless asked for by name, and no code that comes with a model is run.
"""
