"""What is asked over the control sockets, and what the answers hold."""

from pydantic import BaseModel, ConfigDict

RELOAD = "reload"


class ReloadAnswer(BaseModel):
    """What came of a reload.

    :param applied: the components that run on the new configuration now.
    :param kept: component to why it keeps its old settings.
    :param problems: lines of what is wrong with the files; then nothing was applied.
    :param notes: what takes effect only later, and what would make it (a worker's restart, say).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    applied: list[str] = []
    kept: dict[str, str] = {}
    problems: list[str] = []
    notes: list[str] = []

    @property
    def is_complete(self) -> bool:
        """Whether everybody runs on the new configuration."""
        return not self.kept and not self.problems
