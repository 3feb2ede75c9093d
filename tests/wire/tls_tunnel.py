"""A tunnel through TLS 1.3 for sockets that have none."""

import asyncio
import ssl
import threading


def open_tunnel(address, certs):
    """Leads to tls://HOST:PORT with the files of `server certs issue` in a directory. Returns the address that takes plain connections."""
    host, port = address.removeprefix("tls://").rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(f"{certs}/ca.pem")
    context.load_cert_chain(f"{certs}/certificate.pem", f"{certs}/key.pem")

    async def pump(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # an end like any other
        writer.close()

    async def lead(plain_reader, plain_writer):
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        await asyncio.gather(pump(plain_reader, writer), pump(reader, plain_writer))

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(lead, "127.0.0.1", 0), loop)
    return f"tcp://127.0.0.1:{listening.result().sockets[0].getsockname()[1]}"
