/* What the lanes need of the data plane they belong to. Any thread. */
#pragma once

#include "net/router/dataplane.h"
#include "net/router/lane.h"
#include "net/router/store.h"

#include <stdatomic.h>

struct rs_lane *rs_dataplane_lane(struct rs_dataplane *d, unsigned index);
const char *rs_dataplane_node_id(const struct rs_dataplane *d);
const struct rs_ingress_conf *rs_dataplane_conf(const struct rs_dataplane *d);
struct rs_tls *rs_dataplane_tls(const struct rs_dataplane *d); /* NULL: HTTP without */
struct rs_store *rs_dataplane_store(struct rs_dataplane *d);
/* Requests between lanes that are not over. */
atomic_uint *rs_dataplane_relays(struct rs_dataplane *d);

/* Events for the control thread. `msg` is taken. */
void rs_dataplane_post_replica(struct rs_dataplane *d, const char *replica_id, enum rs_msg type,
                               uint64_t stream, json_t *msg);
void rs_dataplane_post_gone(struct rs_dataplane *d, const char *replica_id, const char *why);
void rs_dataplane_post_idle(struct rs_dataplane *d, const char *replica_id);
void rs_dataplane_post_choose(struct rs_dataplane *d, const char *app, const char *deployment,
                              uint64_t id, json_t *question);
void rs_dataplane_post_load(struct rs_dataplane *d, bool urgent);
