# SPDX-License-Identifier: Apache-2.0
"""The plan: what is done, in which order, from wherever it is interrupted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aetherless_registry.desired import (
    ChannelRules,
    Desired,
    Observed,
    ObservedChannel,
    ObservedInstance,
    ObservedRoute,
    Step,
    StepKind,
)
from aetherless_registry.names import golden_id, instance_id, sandbox_owner, snapshot_id
from aetherless_registry.plan import next_step

if TYPE_CHECKING:
    from collections.abc import Callable

TESTDATA = Path(__file__).parent / "testdata"
F = "f"
DUAL = 3
STEP_LIMIT = 80
RULES, OTHER_RULES = ChannelRules(1_000_000), ChannelRules(2_000_000, ("g",))
# What a transcript's command makes of what is desired.
WISHES: dict[str, dict[str, Any]] = {
    "channel": {"channel": RULES},
    "delete": {"deleting": True},
    "fail": {"failed": True},
    "lose": {"failed": True, "serving_revision": 0, "serving_port": 0},
    "no-channel": {"channel": None},
    "spoil": {"spoiled": True},
}
# What a transcript's command makes of an instance.
STATES = {"run": "RUNNING", "try": "TRYING"}


@dataclass
class Sandbox:
    """A pure host that steps change, with the rules of the real one."""

    instances: dict[str, ObservedInstance] = field(default_factory=dict)
    endpoints: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, int] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    roots: set[int] = field(default_factory=set)
    routes: dict[int, ObservedRoute] = field(default_factory=dict)
    channel: ObservedChannel | None = None
    made: int = 0

    def observed(self) -> Observed:
        """Return what there is."""
        return Observed(
            instances=dict(self.instances),
            endpoints=dict(self.endpoints),
            snapshots=dict(self.snapshots),
            tried=frozenset(self.tried),
            roots=frozenset(self.roots),
            routes=dict(self.routes),
            channel=self.channel,
        )

    def take(self, step: Step) -> None:
        """Do a step; asserts that the services would not refuse it."""
        golden = golden_id(F, step.revision)
        instance, snapshot = instance_id(F, step.revision), snapshot_id(F, step.revision)
        match step.kind:
            case StepKind.CREATE_GOLDEN | StepKind.CREATE_INSTANCE:
                self.create(golden if step.kind is StepKind.CREATE_GOLDEN else instance, snapshot)
            case StepKind.ATTACH_GOLDEN | StepKind.ATTACH_INSTANCE:
                name = golden if step.kind is StepKind.ATTACH_GOLDEN else instance
                assert name not in self.endpoints
                self.endpoints[name] = self.instances[name].netns_path
            case StepKind.CREATE_SNAPSHOT:
                assert self.instances[golden].state == "CREATED"
                assert self.endpoints[golden] == self.instances[golden].netns_path
                self.instances[golden] = replace(self.instances[golden], state="STARTED")
                self.snapshots[snapshot] = DUAL
                if self.channel:
                    admitted = self.channel.admitted
                    self.channel = replace(self.channel, admitted=admitted - {golden})
            case StepKind.TRY_SNAPSHOT:
                assert self.instances[instance].state == "CREATED"
                assert self.endpoints[instance] == self.instances[instance].netns_path
                assert snapshot not in self.tried
                self.tried.add(snapshot)
            case StepKind.ARM_INSTANCE:
                assert snapshot in self.tried
                assert self.endpoints[instance] == self.instances[instance].netns_path
                self.instances[instance] = replace(self.instances[instance], state="ARMED")
            case StepKind.SET_ROUTE | StepKind.RESERVE_PORT:
                endpoint = instance if step.kind is StepKind.SET_ROUTE else ""
                assert not endpoint or endpoint in self.endpoints
                self.routes[step.port] = ObservedRoute(F, endpoint, DUAL)
            case StepKind.DELETE_ROUTE:
                assert self.routes.pop(step.port).function == F
            case _ if "channel" in step.kind.value or "mi" in step.kind.value.partition("-")[0]:
                self.take_of_channel(step, golden, instance)
            case _:
                self.undo(step, golden, instance, snapshot)

    def take_of_channel(self, step: Step, golden: str, instance: str) -> None:
        """Do a step on the channel."""
        channel = self.channel
        if step.kind is StepKind.CREATE_CHANNEL:
            assert channel is None
            self.channel = ObservedChannel(OTHER_RULES)
            return
        assert channel
        match step.kind:
            case StepKind.ADMIT_GOLDEN | StepKind.ADMIT_INSTANCE:
                name = golden if step.kind is StepKind.ADMIT_GOLDEN else instance
                assert name in self.instances.keys() - channel.admitted
                self.channel = replace(channel, admitted=channel.admitted | {name})
            case StepKind.DISMISS_INSTANCE:
                assert step.instance in channel.admitted - self.instances.keys()
                self.channel = replace(channel, admitted=channel.admitted - {step.instance})
            case StepKind.SET_CHANNEL:
                assert instance in channel.admitted
                self.channel = replace(channel, instance=instance, rules=RULES)
            case StepKind.DELETE_CHANNEL:
                self.channel = None

    def create(self, name: str, snapshot: str) -> None:
        """Make a sandbox."""
        assert name not in self.instances
        assert name.endswith("golden") or snapshot in self.snapshots
        self.made += 1
        self.instances[name] = ObservedInstance("CREATED", f"new/{self.made}")
        owner = sandbox_owner(name)
        assert owner
        self.roots.add(owner.revision)

    def undo(self, step: Step, golden: str, instance: str, snapshot: str) -> None:
        """Take something away."""
        led_to = {route.endpoint for route in self.routes.values()}
        match step.kind:
            case StepKind.DELETE_GOLDEN:
                assert golden in self.instances or golden in self.endpoints
                self.endpoints.pop(golden, None)
                self.instances.pop(golden, None)
            case StepKind.DRAIN_INSTANCE:
                self.instances[instance] = replace(self.instances[instance], state="ARMED")
            case StepKind.DETACH_INSTANCE:
                assert instance not in led_to
                del self.endpoints[instance]
            case StepKind.DELETE_INSTANCE:
                del self.instances[instance]
            case StepKind.DELETE_SNAPSHOT:
                assert instance not in self.instances
                del self.snapshots[snapshot]
                self.tried.discard(snapshot)
            case StepKind.DELETE_ROOT:
                assert not {golden, instance} & set(self.instances)
                assert snapshot not in self.snapshots
                self.roots.remove(step.revision)
            case _:
                pytest.fail(f"{step} is not for a host")


@dataclass
class World:
    """A function beside its host."""

    desired: Desired = field(default_factory=lambda: Desired(function=F, revision=1, port=8080))
    host: Sandbox = field(default_factory=Sandbox)
    # The revisions that served, the last one first; and the largest number ever used.
    served: list[int] = field(default_factory=list)
    last: int = 1

    def step(self) -> Step | None:
        """Take the next step, and return it."""
        step = next_step(self.desired, self.host.observed())
        if step is None or step.kind in {StepKind.FORGET, StepKind.AWAIT_PORT}:
            return step
        if step.kind is StepKind.MARK_SERVING:
            self.mark_serving(step.revision)
            return step
        self.host.take(step)
        if step.kind is StepKind.DELETE_SNAPSHOT and step.revision == self.desired.target:
            self.desired = replace(self.desired, spoiled=False)
        return step

    def mark_serving(self, revision: int) -> None:
        """Note which revision serves, and which are kept beside it."""
        self.served = [revision, *[each for each in self.served if each != revision]][:3]
        self.desired = replace(
            self.desired,
            serving_revision=revision,
            serving_port=self.desired.port,
            kept=frozenset(self.served[1:]),
        )

    def settle(self) -> list[Step]:
        """Take steps until there is none, or one that ends it."""
        steps: list[Step] = []
        for _ in range(STEP_LIMIT):
            step = self.step()
            if step is None:
                return steps
            steps.append(step)
            if step.kind in {StepKind.FORGET, StepKind.AWAIT_PORT}:
                return steps
        pytest.fail(f"no end: {steps[-6:]}")

    def run(self, line: str) -> str:
        """Run one line of a transcript."""
        command, *words = line.split()
        fields = {key: int(value) for key, value in (word.split("=") for word in words)}
        if command == "declare":
            self.last += 1
            port = fields.get("port", self.desired.port)
            self.desired = replace(self.desired, revision=self.last, port=port, failed=False)
        elif command == "rollback":
            self.desired = replace(self.desired, revision=fields["revision"], failed=False)
        elif command in WISHES:
            self.desired = replace(self.desired, **WISHES[command])
        elif command in STATES:
            name = instance_id(F, fields["revision"])
            self.host.instances[name] = replace(self.host.instances[name], state=STATES[command])
        elif command == "die":
            del self.host.instances[instance_id(F, fields["revision"])]
        elif command == "foreign":
            self.host.routes[fields["port"]] = ObservedRoute("other", "other-r1-0", DUAL)
        else:
            return self.steps(command, fields)
        return ""

    def steps(self, command: str, fields: dict[str, int]) -> str:
        """Take some steps or all, and show them."""
        if command == "step":
            taken = [step for _ in range(fields["count"]) if (step := self.step())]
            return "\n".join(map(show, taken))
        assert command == "settle"
        return "\n".join([*map(show, self.settle()), *self.left()])

    def left(self) -> list[str]:
        """Return what there is, in lines."""
        host = self.host
        instances = (f"{name} {each.state}" for name, each in sorted(host.instances.items()))
        routes = (f"{port} {each.endpoint}" for port, each in sorted(host.routes.items()))
        kinds = {
            "instances": instances,
            "endpoints": sorted(host.endpoints),
            "snapshots": sorted(host.snapshots),
            "roots": map(str, sorted(host.roots)),
            "routes": routes,
        }
        if host.channel:
            admitted = ", ".join(sorted(host.channel.admitted))
            kinds["channel"] = [f"to {host.channel.instance or '-'}, admits {admitted or '-'}"]
        return [f"  {kind}: {', '.join(each) or '-'}" for kind, each in kinds.items()]


def show(step: Step) -> str:
    """Return a step in one line."""
    revision = f" r{step.revision}" if step.revision else ""
    where = f" :{step.port}" if step.port else ""
    return step.kind.value + revision + where + (f" {step.instance}" if step.instance else "")


@pytest.mark.parametrize("path", sorted(TESTDATA.glob("plan_*.txt")), ids=lambda p: p.stem)
def test_transcript(path: Path, transcript: Callable[..., None]) -> None:
    """The plan answers as it was reviewed."""
    transcript(path, World().run)


def test_there_are_transcripts() -> None:
    """The test above ran at all."""
    assert list(TESTDATA.glob("plan_*.txt"))


def channels(draw: st.DrawFn) -> ObservedChannel | None:
    """Draw a channel that anybody may have been let into, or none."""
    if draw(st.booleans()):
        return None
    known = [instance_id(F, 2), instance_id(F, 3), golden_id(F, 3)]
    admitted = draw(st.sets(st.sampled_from(known)))
    rules, goes_to = draw(st.sampled_from([RULES, OTHER_RULES])), draw(st.sampled_from(known))
    return ObservedChannel(rules, goes_to, frozenset(admitted))


def sandboxes(draw: st.DrawFn) -> Sandbox:
    """Draw a host as interrupted deploys of three revisions may have left it, or worse."""
    states = st.sampled_from(
        ["CREATED", "STARTED", "TRYING", "ARMED", "RESTORING", "RUNNING", "ENDED"]
    )
    host = Sandbox()
    for revision in (1, 2, 3):
        for name in (golden_id(F, revision), instance_id(F, revision)):
            if draw(st.booleans()):
                host.instances[name] = ObservedInstance(draw(states), f"old/{name}")
            if draw(st.booleans()):
                host.endpoints[name] = draw(st.sampled_from([f"old/{name}", "stale"]))
        has_snapshot = instance_id(F, revision) in host.instances or draw(st.booleans())
        if has_snapshot:
            host.snapshots[snapshot_id(F, revision)] = DUAL
            if draw(st.booleans()):
                host.tried.add(snapshot_id(F, revision))
        held = any(sandbox_owner(n) == (F, revision) for n in host.instances)
        if held or draw(st.booleans()):
            host.roots.add(revision)
    for port in (8080, 9090):
        leads_to = draw(st.sampled_from([None, "", *sorted(host.endpoints)]))
        if leads_to is not None and not leads_to.endswith("golden"):
            host.routes[port] = ObservedRoute(F, leads_to, DUAL)
    host.channel = channels(draw)
    return host


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw a function in any stage beside any host."""
    serving = draw(st.sampled_from([0, 2, 3]))
    first = draw(st.sampled_from([0, 8080]))
    desired = Desired(
        function=F,
        revision=3,
        port=draw(st.sampled_from([0, 8080, 9090])),
        serving_revision=serving,
        serving_port=first if serving else 0,
        failed=draw(st.booleans()),
        kept=draw(st.sampled_from([frozenset(), frozenset({1}), frozenset({1, 3})])) - {serving},
        deleting=draw(st.booleans()),
        spoiled=draw(st.booleans()),
        channel=draw(st.sampled_from([None, RULES])),
    )
    if serving == desired.revision:
        desired = replace(desired, port=first)
    return World(desired, sandboxes(draw), [serving, *desired.kept] if serving else [])


@given(worlds())
@settings(max_examples=500, deadline=None)
def test_every_world_settles(world: World) -> None:
    """From anything, steps that are accepted lead to what is desired; nothing is left over."""
    before = world.host.observed()
    world.settle()
    target = 0 if world.desired.deleting else world.desired.target
    host = world.host
    lasting = world.desired.lasting
    kept = {snapshot_id(F, each) for each in lasting - {target}}
    assert kept & set(before.snapshots) <= set(host.snapshots) <= {*kept, snapshot_id(F, target)}
    assert host.roots <= lasting
    assert before.roots & lasting <= host.roots
    if not target or not world.desired.channel:
        assert host.channel is None
    if not target:
        assert (host.instances, host.endpoints, host.routes) == ({}, {}, {})
        return
    name = instance_id(F, target)
    assert set(host.instances) == set(host.endpoints) == {name}
    assert host.instances[name].state in {"ARMED", "RUNNING", "RESTORING", "STARTED"}
    assert host.endpoints[name] == host.instances[name].netns_path
    assert snapshot_id(F, target) in host.snapshots
    port = world.desired.target_port
    assert host.routes == ({port: ObservedRoute(F, name, DUAL)} if port else {})
    if world.desired.channel:
        assert host.channel == ObservedChannel(RULES, name, frozenset({name}))
    assert next_step(world.desired, host.observed()) is None


def test_what_serves_is_led_to_until_the_new_one_is_armed() -> None:
    """At no step of a deploy beside an old revision does the port lead nowhere."""
    world = World()
    world.settle()
    world.run("declare")
    while (step := world.step()) is not None:
        route = world.host.routes[8080]
        assert world.host.instances[route.endpoint].state == "ARMED", step
    assert world.host.routes[8080].endpoint == instance_id(F, 2)
