/* A replica that speaks frames over a Unix socket, as a backend.
 *
 * Thread: the lane's.
 */
#pragma once

#include "net/router/backend.h"
#include "net/router/lane.h"

#include <jansson.h>

/* Takes `fd`. Events go to the data plane's control thread. */
RS_MUST_CHECK int rs_replica_new(struct rs_backend **ret, struct rs_lane *lane, int fd,
                                 struct rs_error *err);
/* A message of JSON text, or none (NULL). Nothing happens for backends of other kinds. */
void rs_replica_tell(struct rs_backend *b, enum rs_msg type, uint64_t stream, const char *text);
/* Its figures are known: what it asks of others is counted there. Nothing for other backends. */
void rs_replica_figures(struct rs_backend *b);
/* It is to get no more requests: those that it has not begun go back to the queue. Nothing for backends
 * that do not tell what they begin. */
void rs_replica_take_back(struct rs_backend *b);
/* Reads what it said until now; it may be gone after this. Nothing for backends of other kinds. */
void rs_replica_receive(struct rs_backend *b);
