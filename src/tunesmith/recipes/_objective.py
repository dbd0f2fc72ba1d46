"""What a run is trained for, made to fit the model at hand."""

from __future__ import annotations

from tunesmith.core.config import Chosen, Project
from tunesmith.core.errors import Mistake
from tunesmith.core.records import Text
from tunesmith.recipes._work import Model


def with_objective(project: Project, model: Model) -> Project:
    """The project with its objective as this model's tokenizer fills it in.

    Raises Mistake for an objective that this kind of model cannot learn, and for one of running text elsewhere.
    """
    objective, kind = project.objective, model.prepared.kind
    kinds = getattr(objective.module, "KINDS", (kind,))
    if kind not in kinds:
        wanted = " or ".join(f"{one}s" for one in kinds)
        raise Mistake(
            f"objective: {objective.name} is for {wanted}; got {project.model} ({kind}); "
            "type --objective sft, or choose another model"
        )
    if hasattr(objective.module, "HEAD") and project.task.module.RECORD is not Text:
        raise Mistake(
            f"objective: {objective.name} learns running text; got the task {project.task.name}; "
            "expected language_modelling; leave --objective out"
        )
    if not hasattr(objective.module, "resolve"):
        return project
    config = objective.module.resolve(objective.config, model.loaded.tokenizer)
    return project.model_copy(update={"objective": Chosen("objectives", objective.name, config)})
