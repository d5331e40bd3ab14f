"""Makes `python -m deepseek_grpc.cli` the same as `deepseek-grpc`."""

from deepseek_grpc.cli import main

if __name__ == "__main__":
    main()
