/* A replica that is an HTTP/1.1 server (vLLM, llama-server, Triton, python -m http.server): requests
 * of the data plane are forwarded to it, bodies stream in both directions.
 *
 * Connections: one per request under way, kept alive for a second and used again.
 * Retry:       a kept connection that breaks before any byte of an answer came, or any that is reset
 *              with the request unread, is replaced once by a fresh one, if the method is idempotent and
 *              the whole body is still there, or nothing had been sent. Otherwise the request fails with
 *              DIED.
 * Refused:     a server that does not accept connections blocks the backend; its requests go back to
 *              the queue, and it is tried again after 20 ms, then less and less often up to 1 s.
 * Calls:       `await handle.get.remote("/path")` and the like: see forward.h. The answer is the body as
 *              bytes, with `stream=True` piece by piece as it comes; a status other than 2xx raises.
 * WebSocket:   refused with 501.
 * Thread:      the loop's.
 * SIGPIPE:     must be ignored by the process.
 */
#pragma once

#include "core/loop/loop.h"
#include "net/router/backend.h"

/* At `unix_path`, or if that is NULL at `host`:`port`, host an IP address or localhost (else NULL is
 * returned). Freed through ops->free. */
struct rs_backend *rs_upstream_new(struct rs_loop *loop, const char *host, uint16_t port,
                                   const char *unix_path);
/* Leave the application's route prefix on the paths; it is taken off by default. */
void rs_upstream_keep_prefix(struct rs_backend *b, bool keep);
