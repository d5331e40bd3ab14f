"""Asks for one answer and prints it whole.

Needs a gateway: `deepseek-grpc serve` prints the environment to set.
"""

from deepseek_grpc import Client, system, user


def main() -> None:
    """Asks."""
    with Client.from_env() as client:
        answer = client.text.generate([system("Be brief"), user("What is a deadline in gRPC?")], max_tokens=64)
        print(answer.text)
        print(f"[{answer.meta.model}, {answer.finish_reason}, {answer.usage.total_tokens} tokens]")


if __name__ == "__main__":
    main()
