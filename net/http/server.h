/* The HTTP ingress of one lane: libmicrohttpd inside the lane's loop.
 *
 * server.c   the daemon, its connections, and who hung up
 * ingress.c  a request's life, and its body; ingress_header.c  its header, where it goes;
 * ingress_answer.c  what goes back; ingress_metrics.c  how it is counted
 *
 * Thread: _new on the control thread before the lane runs; the rest on the lane's thread.
 */
#pragma once

#include "core/base/error.h"

#include <stdint.h>

struct rs_http_server;
struct rs_lane;

/* Listens where the data plane's configuration says, with SO_REUSEPORT. `port` 0 becomes the port
 * that was found free. */
RS_MUST_CHECK int rs_http_server_new(struct rs_http_server **ret, struct rs_lane *lane,
                                     uint16_t *port, struct rs_error *err);
/* Connections that are there go on. */
void rs_http_server_stop_accepting(struct rs_http_server *s);
/* Cuts every connection; requests are cancelled. NULL is fine. */
/* The file of the access log was renamed. NULL is fine. */
void rs_http_server_reopen_log(struct rs_http_server *s);
void rs_http_server_free(struct rs_http_server *s);
