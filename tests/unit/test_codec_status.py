import base64
import inspect
import re
import time
import urllib.parse

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from deepseek_grpc import errors
from deepseek_grpc._codec.status import DETAILS_KEY, decode_error, decode_status, encode_status
from deepseek_grpc.errors import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    DeepSeekError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    OutputError,
    RateLimitError,
    RequestTooLargeError,
    ServiceUnavailableError,
    StreamInterruptedError,
)

# Those that a call can end in; the others are raised by this program about itself.
ON_THE_WIRE = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, DeepSeekError) and cls not in (DeepSeekError, ConfigurationError, ClosedError, OutputError)
]
TRAILER_LIMIT = 8 * 1024  # above it gRPC rejects trailers at random


def there_and_back(error):
    status = status_pb2.Status.FromString(encode_status(error).SerializeToString())
    return decode_status(status, "fallback")


def received(code, details="", trailers=(), **options):
    return decode_error(code, details, trailers, request_id="r1", target="gw:443", **options)


def trailer(status):
    return [(DETAILS_KEY, status.SerializeToString())]


@pytest.mark.parametrize("cls", ON_THE_WIRE, ids=lambda cls: cls.__name__)
def test_every_error_survives_the_wire(cls):
    error = cls(
        "it broke", request_id="r7", attempts=3, retry_after=1.25, metadata={"http_status": "502", "field": "x"}
    )
    twin = there_and_back(error)
    assert type(twin) is cls
    assert vars(twin) == vars(error)


@pytest.mark.parametrize("retryable", [True, False])
def test_whether_to_try_again_survives_it_too(retryable):
    assert there_and_back(RateLimitError("x", retryable=retryable)).retryable is retryable
    assert there_and_back(InternalError("x", retryable=retryable)).retryable is retryable


@given(st.floats(0, 1e6))
def test_a_delay_is_exact_to_the_nanosecond(seconds):
    assert there_and_back(RateLimitError("x", retry_after=seconds)).retry_after == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_delay_that_means_nothing_is_left_out(seconds):
    assert there_and_back(RateLimitError("x", retry_after=seconds)).retry_after is None


def test_the_request_id_is_the_callers_where_the_gateway_says_none():
    assert there_and_back(InternalError("x")).request_id == "fallback"


def test_a_new_reason_of_an_old_status_is_kept():
    twin = there_and_back(InvalidRequestError("x", reason="NEW_IN_VERSION_3"))
    assert (type(twin), twin.reason) == (InvalidRequestError, "NEW_IN_VERSION_3")


@pytest.mark.parametrize("letter", ["x", "é", "思", "🎈", "\x00"])
def test_however_long_an_error_is_its_trailers_fit(letter):
    status = encode_status(
        DeepSeekError(
            letter * 100_000,
            reason=letter * 10_000,
            request_id=letter * 10_000,
            retry_after=1.5,
            metadata={f"{letter * 200}{i}": letter * 10_000 for i in range(1000)},
        )
    )
    on_the_wire = len(urllib.parse.quote(status.message)) + len(base64.b64encode(status.SerializeToString()))
    assert on_the_wire < TRAILER_LIMIT - 1024  # room for the pushback and the server's own
    assert letter in status.message


def test_what_utf8_cannot_carry_is_replaced():
    twin = there_and_back(InternalError("half \ud83c a pair", metadata={"a\ud800": "b\udfff"}))
    assert (twin.details, twin.metadata) == ("half ? a pair", {"a?": "b?"})


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_no_text_is_too_strange_for_an_error(details, metadata):
    assert isinstance(there_and_back(InternalError(details, metadata=metadata)), InternalError)


# A clock that is off

GATEWAYS = 1_790_000_000


def refused(clock, **metadata):
    status = encode_status(AuthenticationError("the credential is not valid", metadata=metadata))
    return received(grpc.StatusCode.UNAUTHENTICATED, "", trailer(status), clock=lambda: clock)


@pytest.mark.parametrize(
    ("clock", "says"),
    [
        (GATEWAYS + 600.4, "600 s ahead of"),
        (GATEWAYS - 600.4, "600 s behind"),
        (GATEWAYS + 31, "31 s ahead of"),
        (0, f"{GATEWAYS} s behind"),
    ],
)
def test_a_clock_that_is_off_is_named_where_a_credential_is_refused(clock, says):
    error = refused(clock, gateway_time=str(GATEWAYS))
    assert type(error) is AuthenticationError
    assert str(error) == (
        f"the credential is not valid: this machine's clock is {says} the gateway's (request r1). "
        "Set this machine's clock."
    )


@pytest.mark.parametrize("clock", [GATEWAYS + 30.4, GATEWAYS, GATEWAYS - 30])
def test_a_clock_that_is_nearly_right_is_not_to_blame(clock):
    assert refused(clock, gateway_time=str(GATEWAYS)).details == "the credential is not valid"


@pytest.mark.parametrize("said", ["", "-5", "1.5", "soon", "9" * 5000, "²"])
def test_a_time_that_makes_no_sense_is_none(said):
    assert refused(0, gateway_time=said).details == "the credential is not valid"


def test_the_clock_has_no_part_in_other_errors():
    status = encode_status(InternalError("x", metadata={"gateway_time": str(GATEWAYS)}))
    assert decode_status(status, "r1", clock=lambda: 0).details == "x"


def test_the_clock_is_this_machines():
    now = str(round(time.time()))
    assert decode_status(encode_status(AuthenticationError("x", metadata={"gateway_time": now})), "r1").details == "x"


# What other servers and proxies send


def test_a_failed_call_becomes_what_its_details_say():
    status = encode_status(NotFoundError("no such model", request_id="r7", metadata={"field": "model"}))
    error = received(grpc.StatusCode.NOT_FOUND, "no such model", [("x", "y"), *trailer(status)])
    assert (type(error), error.details, error.request_id) == (NotFoundError, "no such model", "r7")
    assert error.metadata == {"field": "model"}


@pytest.mark.parametrize(
    "trailers",
    [
        (),
        [("some", "text"), ("binary-bin", b"\x00")],
        [(DETAILS_KEY, b"\xff\xff\xff")],
        [(DETAILS_KEY, b"")],
        [(DETAILS_KEY, "text where bytes belong")],
        trailer(status_pb2.Status(code=13, message="about something else")),
        trailer(status_pb2.Status(code=99)),
    ],
)
def test_without_details_that_can_be_read_the_status_itself_counts(trailers):
    error = received(grpc.StatusCode.PERMISSION_DENIED, "not you", trailers)
    assert type(error) is errors.PermissionDeniedError
    assert (error.code, error.details) == (grpc.StatusCode.PERMISSION_DENIED, "not you")
    assert (error.request_id, error.attempts) == ("r1", 1)


def packed(message):
    detail = any_pb2.Any()
    detail.Pack(message)
    return detail


@pytest.mark.parametrize(
    "detail",
    [
        any_pb2.Any(),
        any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff"),
        any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff\xff"),
        any_pb2.Any(type_url="type.example.com/unheard.Of", value=b"\xff\xff"),
        packed(error_details_pb2.Help()),
        packed(error_details_pb2.ErrorInfo(metadata={"attempts": "9" * 5000})),
        packed(error_details_pb2.ErrorInfo(metadata={"attempts": "many", "retryable": "perhaps"})),
    ],
)
def test_a_detail_that_makes_no_sense_takes_nothing_with_it(detail):
    known = packed(error_details_pb2.RetryInfo(retry_delay={"seconds": 2}))
    error = decode_status(status_pb2.Status(code=8, message="slow down", details=[detail, known]), "r1")
    assert (type(error), error.details, error.retry_after) == (RateLimitError, "slow down", 2.0)
    assert (error.attempts, error.retryable) == (1, True)


@pytest.mark.parametrize("code", [0, 99])
def test_an_error_of_no_known_code_is_a_defect(code):
    error = decode_status(status_pb2.Status(code=code), "r1")
    assert (type(error), error.code) == (InternalError, grpc.StatusCode.UNKNOWN)


@given(st.binary())
def test_garbage_never_raises(garbage):
    assert isinstance(received(grpc.StatusCode.INTERNAL, "x", [(DETAILS_KEY, garbage)]), DeepSeekError)


# What gRPC itself says


NONE = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
FAILING = "connections to all backends failing; last error: UNKNOWN: ipv4:127.0.0.1:1: "
TLS = "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"


@pytest.mark.parametrize(
    ("details", "cls", "says"),
    [
        (f"{NONE}Failed to connect to remote host: connect: Connection refused (111)", ConnectError, "nobody listens"),
        (f"{FAILING}Failed to connect to remote host: Connection refused", ConnectError, "nobody listens"),
        (f"{NONE}Failed to connect to remote host: connect: No such file or directory (2)", ConnectError, "nobody"),
        (f"{FAILING}Socket closed", ConnectError, "closed as soon as it stood .*If .*client cert"),
        (f"{FAILING}Handshake read failed (Socket closed)", ConnectError, "closed as soon as it stood"),
        (f"{FAILING}Handshake read failed (Endpoint closing)", ConnectTimeoutError, "Handshake read failed"),
        (f"{FAILING}Handshake read failed", ConnectTimeoutError, "Handshake read failed"),
        (f"{NONE}connection attempt timed out", ConnectTimeoutError, "127.0.0.1:1: connection attempt timed out"),
        (f"{NONE}No route to host", ConnectError, "'gw:443': ipv4:127.0.0.1:1: No route to host"),
        (f"{FAILING}{TLS}CERTIFICATE_VERIFY_FAILED: certificate has expired: OK", ConnectError, "has expired"),
        (f"{FAILING}{TLS}CERTIFICATE_VERIFY_FAILED: certificate revoked", ConnectError, "certificate is not good"),
        (f"{FAILING}{TLS}TLSV1_ALERT_UNKNOWN_CA", ConnectError, "refuses this client's certificate"),
        (f"{FAILING}{TLS}HTTP_REQUEST", ConnectError, "speaks no TLS"),
        (f"{FAILING}Failed to create security handshaker.", ConnectError, r"of no use .*TLS\.key_file"),
        (f"{FAILING}{TLS}NO_SHARED_CIPHER", ConnectError, "NO_SHARED_CIPHER"),
        ("DNS resolution failed for gw:443: C-ares status is not ARES_SUCCESS", ConnectError, "doesn't resolve"),
        ("errors resolving gw:443: [field:hostname lookup error:Domain name not found]", ConnectError, "doesn't resol"),
        (f"{FAILING}backend unhealthy", ServiceUnavailableError, "can be reached, but says that it isn't serving"),
        ("Socket closed", ServiceUnavailableError, "Socket closed"),
        ("", ServiceUnavailableError, "the connection was lost before an answer began"),
    ],
)
def test_no_connection_is_told_apart_from_a_lost_one(details, cls, says):
    error = received(grpc.StatusCode.UNAVAILABLE, details)
    assert type(error) is cls
    assert re.search(says, str(error))
    assert "gw:443" in error.details or cls is ServiceUnavailableError
    assert error.retryable == ((TLS not in details or "NO_SHARED" in details) and "security handshaker" not in details)
    assert str(error).count(". ") == 1  # it has its advice


def test_grpcs_semicolons_are_not_followed_by_advice():
    error = received(grpc.StatusCode.UNAVAILABLE, "GOAWAY received; Error code: 2; Debug Text: Cancelling all calls")
    assert error.details == "GOAWAY received, Error code: 2, Debug Text: Cancelling all calls"
    assert str(error).endswith(f"(request r1, 1 attempt). {ServiceUnavailableError.advice}")


@pytest.mark.parametrize(
    ("details", "more"),
    [("", ""), ("Deadline Exceeded", ""), ("Deadline Exceeded: waiting for a picker", ": waiting for a picker")],
)
def test_a_deadline_is_called_one_once(details, more):
    error = received(grpc.StatusCode.DEADLINE_EXCEEDED, details)
    assert error.details == f"the call's total time is over (Timeouts.total){more}"


def test_a_connection_lost_after_content_is_an_interruption():
    error = received(grpc.StatusCode.UNAVAILABLE, "Socket closed", content=True)
    assert (type(error), error.request_id, error.partial) == (StreamInterruptedError, "r1", "")


def test_what_the_gateway_says_counts_for_more_than_that():
    status = encode_status(ServiceUnavailableError("no backend", retry_after=2))
    error = received(grpc.StatusCode.UNAVAILABLE, "no backend", trailer(status), content=True)
    assert (type(error), error.retry_after) == (ServiceUnavailableError, 2.0)


def test_a_message_above_grpcs_limit_is_no_rate_limit():
    error = received(grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (20 vs. 16)")
    assert type(error) is RequestTooLargeError
    assert str(error).endswith("(20 vs. 16) (request r1). Send or ask for less, or raise max_message_bytes.")


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_status_without_words_gets_some(code):
    assert re.fullmatch(r".*\w\)?", received(code).details)
