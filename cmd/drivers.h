/* Programs outside of rserve that are connected to this node: drivers.
 *
 * A driver speaks the replica's protocol and gets no requests (net/wire/PROTOCOL.md, "Driver"). It comes
 * over a Unix socket that only this user can reach, or it started the node and holds the other end of
 * a socket pair.
 *
 * Thread: the control thread.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"
#include "core/loop/loop.h"
#include "net/router/dataplane.h"

struct rs_drivers;

struct rs_drivers_conf {
    const char *node_id, *values_dir; /* copied */
    const char *run_dir;              /* node.sock is made here; NULL: only the owner connects */
    void (*on_owner_gone)(void *arg);
    void *arg;
};

RS_MUST_CHECK int rs_drivers_new(struct rs_drivers **ret, struct rs_loop *loop,
                                 struct rs_dataplane *dataplane, const struct rs_drivers_conf *conf,
                                 struct rs_error *err);
void rs_drivers_free(struct rs_drivers *d);
RS_DEFINE_AUTO(struct rs_drivers *, rs_drivers_free);

const char *rs_drivers_path(const struct rs_drivers *d); /* of node.sock; NULL: none */

/* Takes the connection of the program that the node was started for. */
RS_MUST_CHECK int rs_drivers_own(struct rs_drivers *d, int fd, struct rs_error *err);

/* What the data plane hears under a driver's name. false: the name is none of a driver. */
bool rs_drivers_hello(struct rs_drivers *d, const char *id, const json_t *hello);
bool rs_drivers_gone(struct rs_drivers *d, const char *id);
