/* Declared graphs on their home lanes: what core/graph/flow.h decides is done here.
 *
 * A graph is at home on one lane, as a deployment is; so its caches, the calls that are shared and its
 * limits are exact. To the lanes it is one more deployment, RS_GRAPH_NAME; a request that is submitted to
 * it stays its origin's, and each call of a stage becomes a request of its own, submitted like any
 * other: same queues, same rules. A graph that is replaced finishes what it has begun.
 *
 * Bodies:  the client's is gathered first, up to max_body. Of a stage's answer that is the graph's own
 *          answer, pieces are passed on as they come; others are gathered.
 * Thread:  the home lane's.
 */
#pragma once

#include "net/router/lane.h"
#include "net/router/request.h"

#include <jansson.h>

/* In place of a deployment's name, which holds no brackets. */
#define RS_GRAPH_NAME "(graph)"

/* The application has this graph from now on (as rs_graph_conf_expand gives it); NULL: none. */
void rs_stage_configure(struct rs_lane *l, const char *app, const json_t *graph);
/* False: the application has no graph here. */
bool rs_stage_submit(struct rs_lane *l, struct rs_request *r, const char *app);
/* Ends all that is under way. */
void rs_stage_close(struct rs_lane *l);

/* request.c, for a request that rs_stage_submit took. */
void rs_stage_feed(struct rs_request *r, struct rs_chunk *body, bool end);
void rs_stage_window(struct rs_request *r, uint64_t n);
void rs_stage_cancel(struct rs_request *r);
