/* What the control thread keeps of the data plane; for dataplane*.c only.
 *
 * A lane is reached by an order, which is posted to its loop, and answers with an event, which is
 * posted to the control loop. An event may come when the data plane is gone: it goes through the
 * door, which is counted and then leads nowhere.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/map.h"
#include "net/router/dataplane-internal.h"
#include "net/router/dataplane.h"
#include "net/router/lane.h"
#include "net/router/metrics.h"
#include "net/router/route.h"

#include <stdatomic.h>

enum { LANES_MAX = 64 };

struct rs_door {
    atomic_uint refs;       /* the data plane and each event under way */
    struct rs_dataplane *d; /* control thread only; NULL: gone */
};

/* A deployment and its home lane. */
struct rs_homed {
    char *app, *name;
    unsigned lane;
    struct rs_figures figures;
    json_t *router;             /* of its own: its configuration; NULL: none */
    char *fresh;                /* version beside the old one that is counted apart; NULL: none */
    struct rs_tallies *tallies; /* of both, the lane's; NULL with `fresh` */
    bool routed, seen;
    bool scales;      /* with its load */
    bool graph, gone; /* it is a graph, see stage.h; that the routes have no more */
};

/* A replica that a lane has. */
struct rs_attached {
    struct rs_homed *deployment;
    struct rs_figures *figures; /* given to the lane with detach */
};

struct rs_dataplane {
    struct rs_loop *control;
    struct rs_ingress_conf conf; /* its texts are copies */
    struct rs_tls *tls;          /* NULL: HTTP without */
    struct rs_router_metrics metrics;
    atomic_bool tell_refused;
    const struct rs_dataplane_ops *ops;
    void *arg;
    struct rs_door *door;
    struct rs_lane lanes[LANES_MAX];
    unsigned n_lanes, next_lane, next_peer;
    struct rs_map deployments; /* by rs_route_key */
    struct rs_map replicas;    /* by id */
    struct rs_map rules;       /* by application: struct rs_rules */
    struct rs_buf key;
    uint16_t port;
    atomic_uint relays;
    struct rs_store *store;
    struct rs_memory memory;
};

/* One message to a lane; each kind uses the fields it needs. Freed when it was carried out. */
struct rs_order {
    void (*carry_out)(struct rs_lane *l, struct rs_order *o);
    struct rs_lane *lane;
    char *app, *deployment, *replica_id, *node_id, *host;
    char *text;                        /* a message, an address, a path */
    struct rs_figures *pool, *figures; /* of the deployment, of the replica */
    struct rs_route_table *table;
    int fd, max_ongoing;
    struct rs_queue_conf queue;
    struct rs_split split;
    struct rs_tallies *tallies; /* the lane's from now on */
    uint64_t version;           /* rs_wish_hash of a replica's; 0: not known */
    uint16_t port;
    unsigned slots;
    bool flag;
    enum rs_msg type;
    uint64_t stream;
    void *wait; /* what the one who gave the order waits for */
    json_t *json;
};

/* Control thread. Carried out by the lane soon; its texts, json and the rest are then freed. */
void rs_dataplane_order(struct rs_dataplane *d, unsigned lane, struct rs_order o);

/* The deployment's entry, made and given a lane if there is none. Control thread. */
struct rs_homed *rs_dataplane_home(struct rs_dataplane *d, const char *app, const char *name);

/* Drops one reference; the last one frees it. Any thread. */
void rs_dataplane_close_door(struct rs_door *door);
