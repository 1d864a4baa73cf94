/* Where a request goes: one lane's copy of the route table. Pure.
 *
 * Rule:      the longest prefix that is the path itself or is followed by "/" in it; "/" takes all.
 * Ownership: a table is counted within its lane (requests under way, the lane): not atomic.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/cleanup.h"
#include "core/base/map.h"

#include <stdbool.h>
#include <stddef.h>

struct rs_route_policy;
struct rs_routes;
struct rs_rules;

/* An application, or (`prefix` "") what no application takes. */
struct rs_route {
    char *app, *prefix, *ingress; /* prefix NULL: not on HTTP */
    size_t prefix_len;
    struct rs_rules *rules; /* NULL: the application asks for nothing */
    struct rs_route_table *table;
    void *cache; /* the user's, freed with drop_cache */
};

struct rs_route_target {
    char *app, *deployment;
    unsigned lane; /* its home */
    int backpressure_status;
    double retry_after_s;
    int64_t request_timeout; /* ns; 0: none of its own */
    bool by_value;
    bool is_graph;        /* of the application, see stage.h */
    struct rs_pool *pool; /* on the home lane, once it was used */
};

struct rs_route_table {
    unsigned refs;
    bool populated, draining;
    struct rs_route *routes; /* longest prefix first */
    size_t n_routes;
    struct rs_route none;
    struct rs_map targets; /* by rs_route_key */
    char *json;            /* answer of /-/routes */
    void (*drop_cache)(void *cache);
};

/* `rules`: one for each of routes->apps, or NULL; referenced. `lane_of` tells the home of a deployment. */
struct rs_route_table *
rs_route_table_new(const struct rs_routes *routes, struct rs_rules *const *rules,
                   unsigned (*lane_of)(const char *app, const char *name, void *arg), void *arg);
struct rs_route_table *rs_route_table_ref(struct rs_route_table *t);
void rs_route_table_unref(struct rs_route_table *t); /* NULL is fine */
RS_DEFINE_AUTO(struct rs_route_table *, rs_route_table_unref);

/* `path` is decoded, without the query. NULL: no application. */
struct rs_route *rs_route_match(struct rs_route_table *t, const char *path, size_t len);
/* What holds for a request on this route; `path` as in the match. Never NULL; as long as the table. */
const struct rs_route_policy *rs_route_policy(const struct rs_route *r, const char *path,
                                              size_t len, const char *method);
struct rs_route *rs_route_app(struct rs_route_table *t, const char *app); /* NULL: none */
struct rs_route_target *rs_route_target(struct rs_route_table *t, const char *app,
                                        const char *deployment);
/* The key of a deployment in maps; into `out`, which is returned. */
const char *rs_route_key(struct rs_buf *out, const char *app, const char *deployment);

/* Percent-decodes `in` into `out`, which has room for `len` bytes; returns the length. What is no
 * valid escape stays as it is. */
size_t rs_route_decode(const char *in, size_t len, char *out);
