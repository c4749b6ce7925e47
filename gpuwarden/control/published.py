"""What all published models have in common."""

from pydantic import BaseModel, ConfigDict


class State(BaseModel):
    """Base of the published models: nothing unknown in, nothing changed after."""

    model_config = ConfigDict(extra="forbid", frozen=True)
