"""Methods: what is trained. Each file is one choice; `method: {name: lora}` picks `lora.py`.

A method changes a causal language model of transformers in place and can undo it. The model is plain, or made ready by
the engine (frozen weights in bfloat16 inside subclasses of `nn.Linear` and `nn.Embedding` that return float32). Frozen
linear layers may be stored in 4 or 8 bits: their `weight` is then bytes, and `dequantized()` gives the matrix.

A choice holds

* `Config`: a `Section` with a description for each key;
* `FAMILY`: one of full, gradual, selective, reparameterized, additive, feature-based, other;
* `GOOD_FOR`: when to take it, in a few words (`tunesmith methods` shows both);
* `LEARNING_RATE`: the peak learning rate that suits it when nobody says another;
* `MERGEABLE`: whether what it learned can become part of the model's own weights;
* `MIXABLE`: whether several of its artifacts can serve in one batch;
* `PEFT_TYPE`: PEFT's name for it, or None where PEFT has no such method (`peft` takes ANY that has none of its own);
* `WHOLE`: whether its artifact is a whole model rather than something laid over a base;
* `attach(model, config)`: freeze the base, add or free the trainable weights (float32, the same under the same seed);
* `detach(model)`: the base again, bit for bit: the same modules, tensors and `requires_grad`;
* `merge(model)` where MERGEABLE: what was learned becomes the model's own weights and nothing stays attached;
* `state(model)`: its weights by name (PEFT's names where PEFT has the method), the live tensors without gradient, so
  clone what is to outlast the next step;
* `restore(model, weights)`: put such weights back; raises Mistake unless names and shapes fit exactly.

and, where it applies,

* `to_peft(model, config)`, `from_peft(settings, names)` where PEFT_TYPE: its part of `adapter_config.json`, and a
  Config from somebody's file (Mistake on a setting that would change the result and is not understood here);
* `resolve(config, tokenizer, instruction)`: a Config with what only the tokenizer and the task know filled in; whoever
  attaches a method for training calls it first (loading an artifact needs none of it);
* `begin(model, config, read)`: a better start than `attach` alone can make, for a method that needs the model's own
  keys and values for a text: `read(ids)` gives them, `[tokens, layers, 2, kv width]` (see `engine.begin`);
* `MODEL_TYPES`: the types of models (`model_type`) it can be laid on, where it is not any; `attach` raises Mistake;
* `survey(model, config, look)`: a Config with what only the data know filled in, seen with the plain base through a
  `_survey.Look`; called after `resolve`, once a run (`recipes/_method.py` keeps what it found);
* `HEAD`: True where it labels whole rows with a head of its own (`_label_head.py`) and leaves the body as it is: rows
  are then read, not written, whatever the model;
* `solve(model, states, targets, weights, seed)`: finds its weights from all rows' pooled states at once, no loop;
* `prefix_tokens(model)`: ids of virtual tokens, counted on from the embedding's rows, that stand before every sequence;
* `ENCODER_LEARNING_RATE`: what `LEARNING_RATE` is for an encoder, whose head is drawn anew, where it is another;
* `SCHEDULE`: the `lr_scheduler_type` that belongs to it when nobody says another;
* `resting(model, step, steps)`: its parameters that are left as they are at optimizer step `step` of `steps`;
* `param_groups(model)`: for the optimizer, each group with a `scale` on the learning rate;
* `penalty(model)`: something it keeps small beside the loss, a number with a gradient;
* `on_step(model, step, steps)`: called after optimizer step `step` of `steps`, gradients still there; what must outlast
  the step lies in the attachment's `memory`, which checkpoints keep;
* `scaled(model, weights, factor)`: what `state` gave, changed so that the base is changed `factor` times as much (0:
  not at all), for methods whose change is added to the base; weights trained in place need none (see `_strength.py`);
* `written(model, config)`: the config and weights that go to disk, where they are not `config` and `state` (ranks that
  were given up, a start that is subtracted); attached with that config, `restore` takes those weights.

Held by `tests/contracts/test_methods.py` for every file of the folder: fresh = base, merged = adapted, detached = base,
gradients reach every weight it owns and no other, saved and loaded = as trained, a target that matches nothing is an
error. Artifacts are written and read by `_artifact.py`, in PEFT's format wherever PEFT has the method.
"""
