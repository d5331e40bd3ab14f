"""The session's two machines over connections that get lost: every turn gets its own, once, in order, and one end."""

from __future__ import annotations

from collections import deque

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deepseek_grpc._codec.fim import encode_complete
from deepseek_grpc._codec.message import decode_message
from deepseek_grpc._codec.request import encode_generate
from deepseek_grpc._session.client import ClientSession, ClientTurn
from deepseek_grpc._session.exchange import Exchange
from deepseek_grpc._session.frames import BATCH_BYTES, HIGH_WATER, REPLAY_BYTES, Budget
from deepseek_grpc._session.gateway import CancelledTurn, GatewaySession, GatewayTurn, RenewedToken, read_open
from deepseek_grpc._session.history import HISTORY_BYTES, conversation
from deepseek_grpc.errors import (
    CancelledByPeerError,
    FailedPreconditionError,
    RateLimitError,
)
from deepseek_grpc.types import TextDelta, assistant, user
from deepseek_rpc.v2 import text_pb2 as pb
from tests.unit.session_pair import NOWHERE, answer, taken

ENTRY_BYTES = HISTORY_BYTES * 2 // 3  # one fits, two don't
MANY = 6


class Turn(ClientTurn):
    """A turn and what the application has had of it."""

    def __init__(self, key, request, *, stream, before=None):
        super().__init__(request, f"r{key}", stream=stream, parent=before and before.going_on())
        self.key = key
        self.before = before
        """The turn that it continues."""
        self.asked = [] if before is None else [*before.asked, before.answer()]
        self.asked.append(user(f"question {key}"))
        self.got = []
        self.given_up = False
        self.moves = False
        self.ends = 0

    def answer(self):
        return assistant(f"answer {self.key}")

    def going_on(self):
        before = self.before and self.before.going_on()
        return Exchange(self.request, before, "s", self.turn_id).answered(self.answer())


class RunningTurn(GatewayTurn):
    """A turn that an engine works on."""

    key = -1


class Connection:
    """Messages under way, and the credential that it was made with."""

    def __init__(self, token):
        self.token = token
        self.up, self.down = deque(), deque()


class LossySessions(RuleBasedStateMachine):
    """Two ends, an application that takes chunks when it likes, an engine that minds its credit, and a bad network."""

    @initialize(
        share=st.sampled_from([0, REPLAY_BYTES]), early=st.lists(st.sampled_from(["turn", "token", "cut"]), max_size=5)
    )
    def open(self, share, early):
        self.client = ClientSession()
        self.share = share  # what other sessions keep; with all of it there is nothing left
        self.turns = []
        self.token = 0
        self.gateways = 0
        self.connection = None
        self.believed = None  # the connection that the gateway writes to
        self.connect()
        for step in early:  # what happens before the gateway has answered
            if step == "turn":
                self.begin_turn(encode_generate(f"question {len(self.turns)}", request_id="r"), stream=True)
            elif step == "token":
                self.renew()
            else:
                self.connect()
            self.connection.up += taken(self.client)

    # The network

    def connect(self):
        """The client begins a connection, whatever the gateway thinks of the last one."""
        self.connection = Connection(self.token)
        self.client.connect()

    def new_gateway(self):
        """What a client opens that can't resume: a session of its own. The one before it goes on without a client."""
        self.gateways += 1
        self.budget = Budget(REPLAY_BYTES)
        self.budget.used = self.share
        self.gateway = GatewaySession(
            "s", resume_token="token", resume_seconds=30.0, budget=self.budget, turn=RunningTurn
        )
        self.running = {}  # turn id: the gateway's turn
        self.said = {}  # key: what the engine said, in the last run
        self.outcomes = {}  # key: how it ended there
        self.seen_ids = set()
        self.heard = []  # the client's messages
        self.gone = False

    @rule(both_notice=st.booleans(), again=st.booleans())
    def cut(self, both_notice, again):
        """The connection is lost; unless both notice, the gateway reads on what had arrived there."""
        if both_notice or self.believed is not self.connection:
            self.connection.up.clear()
            if self.believed is self.connection:
                self.believed = None
        self.connect()
        if again:
            self.client_writes()
            self.connect()

    @rule()
    def client_writes(self):
        if (data := self.client.take()) is not None:
            self.connection.up.append(data)

    @rule()
    def everything_arrives(self):
        self.exchange()

    @precondition(lambda self: self.connection.down)
    @rule()
    def client_reads(self):
        data = self.connection.down.popleft()
        over = {id(turn) for turn in self.turns if turn.ended}
        for turn in {id(turn): turn for turn in self.client.receive(data)}.values():
            assert id(turn) not in over
            if turn.ended:
                turn.moves = turn.error is not None and self.client.again(turn, turn.error)
                if turn.moves and not self.client.going_away:
                    assert turn.error.reason == "PARENT_GONE"
                    turn.ended, turn.error = False, None
                    self.client.start(turn)
                else:
                    turn.ends += 1
        if pb.SessionResponse.FromString(data).seq:
            assert self.client.receive(data) == []  # it came twice

    @precondition(lambda self: self.believed is not None and self.believed is not self.connection)
    @rule()
    def gateway_reads_what_had_arrived(self):
        if self.believed.up:
            self.told(self.believed.up.popleft())

    @precondition(lambda self: self.connection.up)
    @rule()
    def gateway_reads(self):
        connection = self.connection
        data = connection.up.popleft()
        if self.believed is connection:
            self.told(data)
            return
        message = read_open(data)
        if not message.frames[0].open.resume_token:
            self.new_gateway()
        self.gateway.connect(message)
        self.believed = connection
        self.known_token = connection.token

    @precondition(lambda self: self.believed is not None)
    @rule()
    def gateway_writes(self):
        if (data := self.gateway.take()) is not None:
            self.believed.down.append(data)

    @precondition(lambda self: self.believed is not None and self.heard)
    @rule(data=st.data())
    def the_client_says_something_again(self, data):
        repeated = data.draw(st.sampled_from(self.heard))
        assert list(self.gateway.receive(repeated)) == []

    def told(self, data):
        if pb.SessionRequest.FromString(data).seq:
            self.heard.append(data)
        for wanted in self.gateway.receive(data):
            match wanted:
                case GatewayTurn():
                    self.begin(wanted)
                case CancelledTurn(turn, error):
                    assert error is None
                    self.end(turn, "cancelled")
                    self.gateway.fail(turn, CancelledByPeerError("the turn was cancelled"))
                case RenewedToken(token):
                    assert int(token) > self.known_token  # never an older one in the place of a newer
                    self.known_token = int(token)

    # The gateway's engine

    def begin(self, turn):
        start = turn.start
        assert turn.turn_id not in self.seen_ids
        self.seen_ids.add(turn.turn_id)
        if start.HasField("completion"):
            key = int(start.completion.prompt)
        else:
            request = start.request
            asked = [decode_message(message) for message in request.messages]
            if request.prompt:
                asked.append(user(request.prompt))
            key = int(asked[-1].content.split()[-1])
            if start.parent_turn_id:
                before = self.gateway.history.get(start.parent_turn_id)
                if before is None:
                    self.gateway.fail(turn, FailedPreconditionError("it is gone", reason="PARENT_GONE"))
                    return
                asked = [*before[0], *asked]
            assert asked == self.turns[key].asked
        assert key not in self.said
        turn.key = key
        self.said[key] = []
        self.running[turn.turn_id] = turn

    def end(self, turn, how):
        assert turn.key not in self.outcomes
        self.outcomes[turn.key] = how
        del self.running[turn.turn_id]

    def ready(self):
        """The turns whose engines may go on."""
        if self.connection is None or not self.gateways or self.gateway.waiting_bytes >= HIGH_WATER:
            return []
        return [turn for turn in self.running.values() if not turn.held]

    def say(self, turn, sizes):
        said = self.said[turn.key]
        fresh = [f"{turn.key}:{len(said) + i}:{'x' * size}" for i, size in enumerate(sizes)]
        self.gateway.chunks(turn, [TextDelta(text) for text in fresh], NOWHERE)
        said += fresh

    @precondition(lambda self: self.ready())
    @rule(data=st.data(), sizes=st.lists(st.sampled_from([1, 100, 20_000, 70_000, 300_000]), min_size=1, max_size=4))
    def engine_says(self, data, sizes):
        turn = data.draw(st.sampled_from(self.ready()))
        if turn.start.stream:
            self.say(turn, sizes)

    def finish(self, turn):
        self.end(turn, "done")
        self.gateway.done(turn, None if turn.start.stream else answer(f"answer {turn.key}"), NOWHERE)
        asked = self.turns[turn.key]
        if turn.start.HasField("request"):
            self.gateway.history.put(turn.turn_id, conversation(asked.asked, asked.answer()), ENTRY_BYTES)

    @precondition(lambda self: self.ready())
    @rule(data=st.data(), how=st.sampled_from(["well", "well", "badly"]))
    def engine_ends(self, data, how):
        turn = data.draw(st.sampled_from(self.ready()))
        if how == "well":
            self.finish(turn)
        else:
            self.end(turn, "failed")
            self.gateway.fail(turn, RateLimitError(f"failure {turn.key}"))
            self.gateway.chunks(turn, [TextDelta("too late")], NOWHERE)
            self.gateway.done(turn, None, NOWHERE)

    @precondition(lambda self: self.gateways and not self.gone and len(self.turns) > MANY)
    @rule()
    def gateway_asks_to_move(self):
        self.gateway.go_away(1000)
        self.gone = True

    # The application

    @precondition(lambda self: not self.client.going_away)
    @rule(stream=st.booleans(), fim=st.booleans(), size=st.sampled_from([0, 100_000, 300_000]), data=st.data())
    def start(self, stream, fim, size, data):
        key = len(self.turns)
        before = None
        if fim:
            request = encode_complete(str(key), suffix="x" * size, request_id=f"r{key}")
        else:
            request = encode_generate(f"question {key}", request_id=f"r{key}", user_id="x" * min(size, 512))
            over = [turn for turn in self.turns if turn.response is not None or (turn.ends and turn.error is None)]
            over = [turn for turn in over if isinstance(turn.request, pb.GenerateRequest)]
            before = data.draw(st.sampled_from([*over, None]))
        self.begin_turn(request, stream=stream, before=before)

    def begin_turn(self, request, *, stream, before=None):
        turn = Turn(len(self.turns), request, stream=stream, before=before)
        self.client.start(turn)
        self.turns.append(turn)

    @precondition(lambda self: any(not turn.ended for turn in self.turns))
    @rule(data=st.data())
    def cancel(self, data):
        turn = data.draw(st.sampled_from([turn for turn in self.turns if not turn.ended]))
        turn.given_up = True
        self.client.cancel(turn)
        assert turn.ended

    @rule()
    def renew(self):
        self.token += 1
        self.client.renew(str(self.token))

    def take(self, turn):
        turn.got += [chunk.text for chunk in turn.chunks]
        turn.chunks = ()
        self.client.taken(turn)

    @precondition(lambda self: any(turn.chunks for turn in self.turns))
    @rule(data=st.data())
    def application_takes(self, data):
        self.take(data.draw(st.sampled_from([turn for turn in self.turns if turn.chunks])))

    # What always holds

    @invariant()
    def nothing_is_lost_or_doubled(self):
        for turn in getattr(self, "turns", ()):
            said = self.said.get(turn.key, []) if self.gateways else []
            assert turn.got == said[: len(turn.got)]
            assert turn.ends <= 1

    @invariant()
    def memory_is_bounded(self):
        if getattr(self, "gateways", 0):
            assert self.gateway.waiting_bytes <= HIGH_WATER + 4 * 300_100 + BATCH_BYTES
            assert self.gateway._line.unacked_bytes <= REPLAY_BYTES + BATCH_BYTES
            assert self.client._line.unacked_bytes <= REPLAY_BYTES + BATCH_BYTES

    def exchange(self):
        """Carries everything that may be carried; returns whether anything was."""
        moved = False
        while True:
            self.connection.up += taken(self.client)
            if self.believed is not None:
                self.believed.down += taken(self.gateway)
            if not self.connection.up and not self.connection.down:
                return moved
            moved = True
            while self.connection.up:
                self.gateway_reads()
            self.connection.down += taken(self.gateway)
            while self.connection.down:
                self.client_reads()

    def teardown(self):
        if not hasattr(self, "client"):
            return
        self.exchange()
        for _ in range(100):
            for turn in self.turns:
                if turn.chunks:
                    self.take(turn)
            moved = self.exchange()
            ready = self.ready()
            for turn in ready:
                if turn.start.stream:
                    self.say(turn, [10])
                self.finish(turn)
            if not moved and not ready:
                break
        assert not self.running  # none is held for ever
        for turn in self.turns:
            assert turn.ended
            said = self.said.get(turn.key, [])
            if turn.given_up:
                continue
            if turn.moves:
                assert self.gone
                assert (turn.got, said) == ([], [])
                continue
            assert turn.ends == 1
            assert turn.got == said
            if self.outcomes[turn.key] == "failed":
                assert (type(turn.error), turn.error.details) == (RateLimitError, f"failure {turn.key}")
                assert turn.response is None
            elif turn.stream:
                assert (turn.error, turn.response) == (None, None)
            elif isinstance(turn.request, pb.GenerateRequest):
                assert turn.response.message.content == f"answer {turn.key}"
            else:
                assert turn.response.text == f"answer {turn.key}"
        assert self.client.idle
        assert self.gateway.idle
        assert self.known_token == self.token
        # A resume tells both ends how far the other has come: nothing is left to keep.
        self.connect()
        self.exchange()
        assert self.gateway.waiting_bytes == 0
        assert self.client._line.unacked_bytes == self.client.queued_bytes == 0
        assert self.budget.used == self.share
        assert self.client._line._budget.used == 0


TestLossySessions = LossySessions.TestCase
TestLossySessions.settings = settings(
    max_examples=200, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
