/* The proof in a WebSocket handshake that the server read it (RFC 6455, 4.2.2). Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { RS_WS_ACCEPT_LEN = 28 };

/* Is this a Sec-WebSocket-Key: the base64 of 16 bytes? */
bool rs_ws_key_ok(const char *key, size_t len);
/* The Sec-WebSocket-Accept that answers it, with its NUL. */
void rs_ws_accept(const char *key, size_t len, char out[RS_WS_ACCEPT_LEN + 1]);
