/* Links between nodes: requests that go to replicas of another node, and those that come from one.
 *
 * A lane has one connection per other node that it sends to, made when the first slots are announced
 * and made again, with growing pauses, when it is lost. Until the other side has said HELLO the
 * backends behind it are blocked: their requests wait or go elsewhere.
 * Thread: the lane's.
 */
#pragma once

#include "net/router/backend.h"
#include "net/router/lane.h"

struct rs_peer;

/* The lane's link to the node at `address`; made at first use. */
struct rs_peer *rs_peer_at(struct rs_lane *lane, const char *address);
void rs_peer_free(struct rs_peer *p); /* NULL is fine */

/* A backend behind it; `node_id` tells two of one pool apart. */
struct rs_backend *rs_peer_backend_new(struct rs_peer *p, const char *node_id);
const char *rs_peer_backend_node(const struct rs_backend *b);
struct rs_peer *rs_peer_backend_peer(const struct rs_backend *b);

/* A connection that another node made; takes `fd`. */
void rs_peer_accept(struct rs_lane *lane, int fd);
void rs_peer_close_guests(struct rs_lane *lane);
