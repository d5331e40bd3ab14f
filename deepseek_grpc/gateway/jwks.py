"""The keys that an issuer publishes (RFC 7517): fetched beside the calls, kept, renewed."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
from jwt import PyJWK

from deepseek_grpc._http import exchange

__all__ = ["ALGORITHMS", "KeySet", "UnknownKeyError", "fetch", "usable_keys"]

_log = logging.getLogger("deepseek_grpc.gateway.auth")

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
"""What an issuer may sign with: only algorithms whose verifying key can't sign."""
MAX_BYTES: Final = 256 * 1024
TIMEOUT: Final = 5.0
MAX_AGE: Final = 24 * 3600.0
"""Seconds for which keys count that can't be fetched again."""
_MIN_RSA_BITS: Final = 2048  # RFC 7518, section 3.3


class UnknownKeyError(Exception):
    """No key of the set is the token's."""

    def __init__(self, keys: KeySet) -> None:
        super().__init__("no key of the set fits")
        self.keys = keys


class KeySet:
    """An issuer's keys, and what keeps them fresh.

    Args:
        url: Where the set is published, with https unless it is this machine.
        algorithms: What its keys may be for.
        clients: Whose tokens they verify; for the log.
        interval: Seconds between two fetches while all goes well.
        cooldown: Seconds in which made-up key ids bring about one fetch at most.
        patience: Seconds until the first try after a failure; they double, up to `cooldown`.
    """

    def __init__(
        self,
        url: str,
        algorithms: Sequence[str] = ALGORITHMS,
        *,
        clients: Sequence[str] = (),
        interval: float = 300,
        cooldown: float = 30,
        patience: float = 1,
    ) -> None:
        self.url = url
        self.algorithms = tuple(algorithms)
        self.problem = "not fetched yet"
        """Why the last fetch failed; empty when it didn't."""
        self._clients = clients
        self._interval, self._cooldown, self._patience = interval, cooldown, patience
        self._keys: list[PyJWK] = []
        self._published = b""
        self._seen_at = 0.0
        self._changed: list[Callable[[], None]] = []
        self._may_refresh_at = 0.0
        self._fetching: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    def on_change(self, action: Callable[[], None]) -> None:
        """Has something done whenever other keys take the place of these."""
        self._changed.append(action)

    def find(self, algorithm: str, key_id: str | None) -> PyJWK:
        """Returns the one key for an algorithm and a `kid`; without a `kid`, the one there is for the algorithm.

        Raises:
            UnknownKeyError: There is none.
            ValueError: There are several.
        """
        fitting = [
            key for key in self._keys if key.algorithm_name == algorithm and (key_id is None or key.key_id == key_id)
        ]
        if not fitting:
            raise UnknownKeyError(self)
        if len(fitting) > 1:
            raise ValueError("several keys of its issuer fit" if key_id else "no kid, and its issuer has several keys")
        return fitting[0]

    def start(self) -> None:
        """Begins to fetch, now and from time to time, on the running event loop."""
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def aclose(self) -> None:
        """Ends the fetching; the keys stay."""
        tasks = [task for task in (self._keeper, self._fetching) if task is not None]
        self._keeper = self._fetching = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def refresh(self) -> None:
        """Fetches because a key was missing: waits for the fetch under way, or starts one if none was just made."""
        if self._fetching is None:
            now = time.monotonic()
            if now < self._may_refresh_at:
                return
            self._may_refresh_at = now + self._cooldown
        await self._fetch_once()

    async def _keep(self) -> None:
        wait = self._patience
        while True:
            await self._fetch_once()
            if not self.problem:
                wait = self._patience
            await asyncio.sleep(wait if self.problem else self._interval)
            wait = min(wait * 2, self._cooldown)

    async def _fetch_once(self) -> None:
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        # One who waits and gives up doesn't end it for the others.
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            published = await asyncio.wait_for(_in_thread(lambda: fetch(self.url)), 2 * TIMEOUT)
            if published != self._published:
                self._take(published)
            self._seen_at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next try may go better
            self._fail(str(error) or type(error).__name__)
        else:
            if self.problem:
                _log.info("the keys of %s were fetched: %d usable", self.url, len(self._keys))
            self.problem = ""
        finally:
            self._fetching = None

    def _take(self, published: bytes) -> None:
        keys = usable_keys(published, self.algorithms)
        if not keys:
            self._drop("its set is empty now")
            raise ValueError(f"it has no key for {' or '.join(self.algorithms)} with use `sig`")
        self._replace(keys, published)

    def _replace(self, keys: list[PyJWK], published: bytes) -> None:
        self._keys, self._published = keys, published
        for action in self._changed:
            action()

    def _drop(self, why: str) -> None:
        if self._keys:
            _log.error("the keys of %s count no longer: %s", self.url, why)
            self._replace([], b"")

    def _fail(self, problem: str) -> None:
        if time.monotonic() - self._seen_at > MAX_AGE:
            self._drop(f"they were fetched more than {MAX_AGE / 3600:g} hours ago")
        if problem != self.problem:  # once a problem, not once a try
            self.problem = problem
            _log.error(
                "the keys of %s can't be fetched: %.200s; until they can, %s of the clients %.200s are answered with "
                "UNAVAILABLE. Is jwks_url right, and can this machine reach it?",
                self.url,
                ascii(problem)[1:-1],
                "tokens signed with new keys" if self._keys else "all tokens",
                ", ".join(self._clients),
            )


def usable_keys(published: bytes, algorithms: Sequence[str]) -> list[PyJWK]:
    """Reads a JWK set and leaves out what can't verify these algorithms' signatures.

    That is keys of another type, `use`, `key_ops` or `alg`, short ones, and those published with their private half.

    Raises:
        ValueError: It is no JWK set.
    """
    try:
        document = json.loads(published)
    except (ValueError, RecursionError):
        raise ValueError("it isn't JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("it is no JWK set: an object with a list `keys`")  # noqa: TRY004 - what was read is wrong
    return [key for entry in entries if (key := _usable(entry, algorithms)) is not None]


def _usable(entry: Any, algorithms: Sequence[str]) -> PyJWK | None:
    if (
        not isinstance(entry, dict)
        or entry.get("kty") not in ("RSA", "EC", "OKP")
        or entry.get("use", "sig") != "sig"
        or "d" in entry
        or not isinstance(entry.get("kid", ""), str)
    ):
        return None
    operations = entry.get("key_ops", ["verify"])
    if (
        entry.get("alg", algorithms[0]) not in algorithms
        or not isinstance(operations, list)
        or "verify" not in operations
    ):
        return None
    try:
        key = PyJWK(entry)  # its `alg`, or where it has none the one for its type and curve
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError):  # the text of which may quote it
        return None
    return key if key.algorithm_name in algorithms and _fits(key) else None


def _fits(key: PyJWK) -> bool:
    """Says whether a key is of the kind and the size that its algorithm asks for."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    match key.algorithm_name, key.key:
        case "RS256", rsa.RSAPublicKey() as public:
            return public.key_size >= _MIN_RSA_BITS
        case "ES256", ec.EllipticCurvePublicKey() as public:
            return isinstance(public.curve, ec.SECP256R1)
        case "EdDSA", ed25519.Ed25519PublicKey():
            return True
    return False


def fetch(url: str) -> bytes:
    """Fetches a document of at most 256 KiB within 5 s, without following redirects; see `exchange`.

    Raises:
        OSError: There is no connection, or no good certificate.
        HTTPException: What answers doesn't speak HTTP.
        ValueError: The status isn't 200, or the document is too large.
    """
    parts = urlsplit(url)
    answer = exchange(
        parts,
        tls=ssl.create_default_context() if parts.scheme == "https" else None,
        timeout=TIMEOUT,
        max_bytes=MAX_BYTES,
        headers={"Accept": "application/jwk-set+json, application/json"},
    )
    if answer.status != 200:
        raise ValueError(f"HTTP status {answer.status} instead of 200")
    if len(answer.body) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    return answer.body.reveal()


async def _in_thread(work: Callable[[], bytes]) -> bytes:
    """Waits for work done in a thread that nothing waits for at the end, as it would for one of the loop's executor."""
    future: Future[bytes] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)
        else:
            future.set_result(result)

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name="jwks", daemon=True).start()
    return await asyncio.wrap_future(future)
