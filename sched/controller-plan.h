/* What a configuration would do: controller-plan.c (which applications, and the builds that it takes to
 * know), controller-plan-room.c (whether there is room, and where).
 *
 * Part of the controller: the same rules as in controller.h.
 */
#pragma once

#include "sched/controller-change.h"

/* One deployment of a plan, and what comes of it on the nodes. */
struct rs_ct_outlook {
    const struct rs_ct_app *app; /* NULL: it is new */
    const char *app_name;
    const struct rs_ct_change *change; /* borrowed */

    unsigned *on_node; /* replicas on each node of the board, once all is done */
    unsigned pending;  /* that find no room */
    char *why;         /* why not; NULL */
    unsigned surge;    /* replicas that may be started before old ones stop */
    unsigned surge_fits;
    char *surge_why; /* why not all of them fit beside the old ones; NULL */
    struct rs_resources peak;
};

struct rs_ct_room {
    struct rs_ct_outlook *all;
    size_t n, cap;
    char **nodes; /* names, in the order of `on_node` */
    size_t n_nodes;
    struct rs_resources now, peak, total; /* taken now; taken at the peak; there is */
};

/* Another deployment of the plan; before rs_ct_room_look. */
void rs_ct_room_add(struct rs_ct_room *r, const struct rs_ct_app *app, const char *app_name,
                    const struct rs_ct_change *change);
/* A dry run of placing, on a copy of the ledger. */
void rs_ct_room_look(struct rs_ct_room *r, const struct rs_controller *c);
void rs_ct_room_fini(struct rs_ct_room *r);
const struct rs_ct_outlook *rs_ct_room_find(const struct rs_ct_room *r, const char *app,
                                            const char *name);
/* No old replica serves until a new one does. */
bool rs_ct_outlook_gap(const struct rs_ct_outlook *o);

/* Plans that wait for builds. */
void rs_ct_plans_update(struct rs_controller *c, int64_t now);
int64_t rs_ct_plans_deadline(const struct rs_controller *c); /* INT64_MAX: none */
/* An answer to a BUILD; true: it was a plan's. */
bool rs_ct_plans_answer(struct rs_controller *c, const json_t *answer, bool ok, int64_t now);
void rs_ct_plans_node_left(struct rs_controller *c, const char *node_id);
void rs_ct_plans_free(struct rs_controller *c);
