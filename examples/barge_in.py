"""Talks like a voice assistant: the user may break in, and the model knows how far it had come.

Needs a gateway: `deepseek-grpc serve --pace 20`, for answers at about the speed of speech, prints the environment to
set.
"""

import asyncio

from deepseek_grpc import AsyncClient, AsyncTextStream

SCRIPT = (
    ("What is bidirectional streaming?", 8),
    ("No, wait: what is cancellation?", 12),
    ("And what is a deadline?", None),
)
"""What the user says, and after how many pieces of the answer they break in; None: they hear it out."""


async def main() -> None:
    """Answers in turn, each time in the light of what was said before."""
    async with AsyncClient.from_env() as client, client.text.session() as session:
        before: AsyncTextStream | None = None
        for words, patience in SCRIPT:
            print(f"> {words}")
            # Of an answer that ended, the gateway has the conversation; of one that was cut off, the client sends it.
            turn = session.stream(words, parent=before, max_tokens=40)
            await speak(turn, patience)
            before = turn


async def speak(turn: AsyncTextStream, patience: int | None) -> None:
    """Says an answer as it comes, until the user breaks in."""
    said = 0
    async for piece in turn.text():
        print(piece, end="", flush=True)
        said += 1
        if said == patience:
            # The model stops too, so that nothing is paid for that nobody hears; the session stays up. A task that
            # listens to a microphone may call this as well.
            await turn.cancel()
    answer = await turn.final()
    print(" -" if answer.finish_reason == "cancelled" else "")


if __name__ == "__main__":
    asyncio.run(main())
