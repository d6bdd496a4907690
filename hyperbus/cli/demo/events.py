"""What happens in the demo's workflows: six families of events."""

from __future__ import annotations

from hyperbus.event.data import EventData


class WorkflowCreated(EventData, type="workflow.created"):
    """Somebody asked for a contract."""

    contract: str


class WorkflowStarted(EventData, type="workflow.started"):
    """The coordinator took it up."""

    contract: str
    network: str = "testnet"


class WorkflowCompleted(EventData, type="workflow.completed"):
    """All is done."""

    steps: int


class WorkflowFailed(EventData, type="workflow.failed"):
    """A step failed, and the workflow with it."""

    step: str
    reason: str


class GenerationStarted(EventData, type="generation.started"):
    """The generator began to write."""

    model: str


class GenerationCompleted(EventData, type="generation.completed"):
    """The code is there."""

    tokens: int
    lines: int


class GenerationFailed(EventData, type="generation.failed"):
    """No usable code came out."""

    reason: str


class AuditStarted(EventData, type="audit.started"):
    """The auditor began to read."""

    lines: int


class AuditCompleted(EventData, type="audit.completed"):
    """The auditor is done. `hard` ones are those that the demo's reviewer stumbles over once."""

    findings: int
    hard: bool = False


class AuditFailed(EventData, type="audit.failed"):
    """The auditor found something that stops the workflow."""

    finding: str


class TestingStarted(EventData, type="testing.started"):
    """The tester began."""

    cases: int


class TestingCompleted(EventData, type="testing.completed"):
    """The tests ran."""

    passed: int
    failed: int


class DeploymentStarted(EventData, type="deployment.started"):
    """The deployer began."""

    network: str


class DeploymentCompleted(EventData, type="deployment.completed"):
    """The contract is live."""

    address: str


class AgentAsked(EventData, type="a2a.asked"):
    """One agent asked another."""

    asked: str
    question: str


class AgentAnswered(EventData, type="a2a.answered"):
    """And was answered."""

    asker: str
    answer: str
