/* The deployment graph of one application: which deployments there are and who calls whom.
 *
 * Built from the GRAPH that a zygote sends (net/wire/PROTOCOL.md, section 3), from deployments of
 * kind exec or http that the file declares, or both. Where the file declares a graph too, its steps
 * (plan.h) decide who is called. core/graph may include core/base, core/model and core/config.
 *
 * Ownership: rs_graph_free releases all; names and options are owned by the graph.
 * Invariant: what rs_graph_build returned has an ingress, unique names, edges inside the graph and no
 *            cycle.
 */
#pragma once

#include "core/base/buf.h"
#include "core/config/config.h"
#include "core/graph/plan.h"

#define RS_GRAPH_MAX 10000 /* deployments of an application */

struct rs_graph_node {
    char *name;
    enum rs_deployment_kind kind;
    bool from_file; /* declared by the file alone */
    bool asgi, function;
    char *object;    /* "module.Class", or NULL */
    json_t *options; /* what the code set; NULL for from_file */
    size_t *calls;   /* indexes, in the order of the code, each once */
    size_t call_count;
};

struct rs_graph {
    char *app;
    char *docs_path; /* NULL: none */
    size_t ingress;  /* index */
    struct rs_graph_node *nodes;
    size_t count;
    struct rs_plan *plan; /* takes the requests in place of the ingress; NULL: none */
};

/* `described` is a GRAPH message, or NULL when the application has no import_path. Fails with one
 * line: duplicate, unknown name, cycle, unreachable, or a name in the file that does not exist. */
RS_MUST_CHECK int rs_graph_build(struct rs_graph **ret, const struct rs_config_app *app,
                                 const json_t *described, struct rs_error *err);
void rs_graph_free(struct rs_graph *g);
RS_DEFINE_AUTO(struct rs_graph *, rs_graph_free);

/* NULL: none. */
const struct rs_graph_node *rs_graph_find(const struct rs_graph *g, const char *name);
/* Fills `order[count]`: callees before their callers; otherwise in the order of the graph. */
void rs_graph_order(const struct rs_graph *g, size_t *order);
/* Declared by the file, but neither the ingress nor called by anyone the graph knows of. */
bool rs_graph_unreached(const struct rs_graph *g, size_t node);

enum rs_graph_change_kind { RS_GRAPH_ADDED, RS_GRAPH_REMOVED, RS_GRAPH_CHANGED };
struct rs_graph_change {
    enum rs_graph_change_kind kind;
    char *name;
    char *fields; /* of CHANGED: "calls, num_replicas, ingress" */
};
struct rs_graph_diff {
    struct rs_graph_change *items;
    size_t count, cap;
};
/* In the order of `b`, then what only `a` has. Either may be NULL: an empty graph. */
void rs_graph_diff(const struct rs_graph *a, const struct rs_graph *b, struct rs_graph_diff *ret);
void rs_graph_diff_fini(struct rs_graph_diff *d);

/* Appends the tree of the plan, or one node a line from the ingress down; a node that was shown before is only named,
 * with "(above)". Then what nobody calls. `note` appends to the line of a node what else is known of
 * it (NULL: nothing). */
void rs_graph_print(const struct rs_graph *g, struct rs_buf *out,
                    void (*note)(const struct rs_graph_node *n, struct rs_buf *out, void *arg),
                    void *arg);
/* `deployment_topology` of the REST API. A new reference. */
json_t *rs_graph_json(const struct rs_graph *g);
