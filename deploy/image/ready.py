#!/opt/neurofv/bin/python
"""Exit with 0 if the server in this container takes requests: the image's health check."""

import http.client
import os
import ssl
import sys


def main() -> None:
    """Ask /readyz; a server that cannot be reached or says 503 ends this with status 1."""
    port = int(os.environ.get("NEUROFV_HTTP_PORT", "8002"))
    # http.client and not urllib: the latter would send this to a proxy that the environment names.
    everywhere = os.environ.get("NEUROFV_HTTP_HOST", "127.0.0.1") not in ("127.0.0.1", "::1", "localhost")
    if everywhere and os.environ.get("NEUROFV_TLS_CERTIFICATE"):
        # The server's own loopback: its certificate is for the name by which others know it.
        context = ssl._create_unverified_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=4, context=context
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace").strip()
    except OSError as error:
        sys.exit(f"127.0.0.1:{port} does not answer: {error}")
    if answer.status != http.client.OK:
        sys.exit(f"{answer.status} {text}")
    print(text)


if __name__ == "__main__":
    main()
