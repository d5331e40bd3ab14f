"""Prints an answer as it comes, and says so when it comes too late.

Needs a gateway: `deepseek-grpc serve` prints the environment to set.
"""

from deepseek_grpc import Client, Timeouts, errors


def main() -> None:
    """Streams."""
    with Client.from_env() as client:
        stream = client.text.stream("What is server streaming?", timeout=Timeouts(first_token=5, total=60))
        try:
            with stream:
                for piece in stream.text():
                    print(piece, end="", flush=True)
        except errors.FirstTokenTimeoutError as error:
            raise SystemExit(f"the model is slow today: {error}") from error
        final = stream.final()
        print(f"\n[{final.meta.model}, {final.finish_reason}, {final.usage.total_tokens} tokens]")


if __name__ == "__main__":
    main()
