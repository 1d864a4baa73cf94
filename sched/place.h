/* On which node should the next replica run? Pure: what it needs is handed in.
 *
 * Balanced: among the nodes with room, the one that runs fewest replicas of this deployment, then
 * the one left with most room (by its scarcest wanted resource), then the first in the list. So
 * replicas spread, as Ray's default does, and the answer depends on the inputs alone.
 *
 * Units: amounts in 1/10000 (memory in bytes), see core/resource.
 */
#pragma once

#include "core/base/buf.h"

#include <stdbool.h>
#include <stddef.h>

struct rs_resources;

struct rs_place_node {
    const char *id, *name;
    const struct rs_resources *total, *free;
    unsigned replicas;     /* of this deployment that are placed here */
    unsigned replicas_all; /* of all deployments */
    bool usable;           /* false: leaving or silent */
    bool unlike;           /* it has not the labels that are asked for */
    bool head;             /* emptied last */
};

struct rs_place_want {
    const struct rs_resources *each;
    unsigned max_per_node; /* 0: no limit */
};

#define RS_PLACE_NONE ((size_t)-1)

/* Index of the node for one more replica, or RS_PLACE_NONE. */
size_t rs_place_pick(const struct rs_place_node *nodes, size_t n, const struct rs_place_want *want);
/* Why rs_place_pick found none, in numbers: "node-a: needs 1 GPU; node has 0" (of each node, or of the
 * nearest ones and how many more there are). */
void rs_place_why(const struct rs_place_node *nodes, size_t n, const struct rs_place_want *want,
                  struct rs_buf *ret);
/* Index of the node that gives up a replica of this deployment, or RS_PLACE_NONE: unusable nodes,
 * then the node with fewest replicas of all, the head's own last. */
size_t rs_place_drop(const struct rs_place_node *nodes, size_t n);
