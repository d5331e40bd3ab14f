import pytest

from deepseek_grpc.errors import ConfigurationError, NotFoundError, ServiceUnavailableError, UnimplementedError
from deepseek_grpc.gateway.router import Backend, Router
from deepseek_grpc.types import AccountBalance, Balance, Model


class Engine:
    """An engine as far as a router looks at it."""

    def __init__(self, name, *models, account=None):
        self.name = name
        self._models = models
        self._account = account or UnimplementedError("no account")
        self.closed = False

    async def models(self):
        return [Model(model, backend="its own idea") for model in self._models]

    async def balance(self):
        if isinstance(self._account, Exception):
            raise self._account
        return self._account

    async def aclose(self):
        self.closed = True


FIRST, SECOND = Engine("first", "small", "large"), Engine("second", "large", "huge")
ALIASES = {"chat": "large", "default": "small"}
ROUTER = Router([Backend(FIRST, ("small", "large")), Backend(SECOND, ("large", "hug*"))], ALIASES, "default")


@pytest.mark.parametrize(
    ("asked", "engine", "model"),
    [
        ("small", FIRST, "small"),
        ("large", FIRST, "large"),  # the first backend that serves it
        ("huge", SECOND, "huge"),
        ("hug", SECOND, "hug"),  # a pattern takes what it matches; the engine knows better
        ("chat", FIRST, "large"),
        ("", FIRST, "small"),  # the default, which may be an alias
    ],
)
def test_a_model_goes_to_the_first_backend_that_serves_it(asked, engine, model):
    for _ in range(2):
        assert ROUTER.resolve(asked) == (engine, model)


@pytest.mark.parametrize("asked", ["tiny", "LARGE", "large ", "*", "x" * 400])
def test_what_nobody_serves_is_not_found(asked):
    with pytest.raises(NotFoundError, match="isn't served here") as caught:
        ROUTER.resolve(asked)
    assert caught.value.metadata == {"field": "model"}
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("aliases", "default", "key"),
    [
        ({}, "tiny", "default_model: no backend serves 'tiny'"),
        ({"old": "chat", "chat": "large"}, "large", "aliases.old: no backend serves 'chat'"),  # never chained
    ],
)
def test_what_no_backend_serves_is_found_at_the_start(aliases, default, key):
    with pytest.raises(ConfigurationError, match=key):
        Router([Backend(FIRST, ("small", "large"))], aliases, default)


def test_a_star_takes_everything():
    router = Router([Backend(FIRST, ("*",))], {}, "x")
    assert router.resolve("whatever") == (FIRST, "whatever")


def test_names_that_a_star_takes_do_not_pile_up():
    router = Router([Backend(FIRST, ("*",))], {}, "x")
    for number in range(5_000):
        assert router.resolve(f"model-{number}") == (FIRST, f"model-{number}")
    assert len(router._resolved) <= 1_000


async def test_models_are_listed_with_their_aliases_and_backends_in_order():
    listed = await ROUTER.models()
    assert [(m.id, m.backend, m.aliases) for m in listed] == [
        ("small", "first", ("default",)),
        ("large", "first", ("chat",)),
        ("large", "second", ("chat",)),
        ("huge", "second", ()),
    ]


FREE = AccountBalance(available=True)
EMPTY = AccountBalance(available=False, balances=(Balance("USD", "0.00"),))
FULL = AccountBalance(available=True, balances=(Balance("USD", "10.00"),))
NONE = UnimplementedError("no account")


@pytest.mark.parametrize(
    ("accounts", "balance"),
    [
        ([FULL], FULL),
        ([EMPTY, FULL], EMPTY),  # the one that is preferred, not the one that has more
        ([FREE, NONE, FULL, EMPTY], FULL),
        ([NONE, FREE], FREE),
        ([FREE, NONE, AccountBalance(available=False)], FREE),
    ],
)
async def test_the_balance_is_that_of_the_first_backend_that_charges_one(accounts, balance):
    router = Router([Backend(Engine("e", account=account), ("*",)) for account in accounts], {}, "x")
    assert await router.balance() == balance


async def test_a_balance_that_nobody_knows():
    with pytest.raises(UnimplementedError, match="no backend of this gateway knows a balance"):
        await ROUTER.balance()


async def test_a_backend_that_fails_is_not_passed_over():
    engines = [Engine("down", account=ServiceUnavailableError("down")), Engine("up", account=FULL)]
    with pytest.raises(ServiceUnavailableError):
        await Router([Backend(engine, ("*",)) for engine in engines], {}, "x").balance()


def test_a_gateway_needs_a_backend():
    with pytest.raises(ConfigurationError, match="backend"):
        Router([], {}, "x")


async def test_closing_closes_every_engine():
    engines = [Engine("a"), Engine("b")]
    await Router([Backend(engine, ("*",)) for engine in engines], {}, "x").aclose()
    assert [engine.closed for engine in engines] == [True, True]
