"""`python -m service`, which is `neurofv-server`: the server, and its tokens."""

import argparse

from service import token_command


def main() -> None:
    """Read the command line, and do what it says."""
    parser = argparse.ArgumentParser(prog="neurofv-server", description="Serve, until SIGTERM or Ctrl-C.")
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="accept plaintext, or callers without credentials, beyond loopback",
    )
    token_command.add_parser(parser.add_subparsers(dest="command"))
    arguments = parser.parse_args()
    if arguments.command == "token":
        token_command.run(arguments)
        return
    # Imported late: the server needs torch, whose import takes seconds.
    from service.start import serve

    serve(arguments.insecure)


if __name__ == "__main__":
    main()
