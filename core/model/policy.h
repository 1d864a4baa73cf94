/* What an application asks of the ingress for its requests: limits, priority, whether they may be run
 * twice; for all of them, and for some by path and method.
 *
 * JSON:      the members of `rserve:` of an application in a configuration file, as it was checked by
 *            core/config: max_body (bytes), request_timeout_s, idempotent, priority, max_priority, rate_limit
 *            {requests_per_s, burst, key} and routes [{path, methods, and the same members}]. A member
 *            that is absent in a route counts as in the application; null lifts what that says.
 * Match:     the route with the longest path that is the request's path or is followed by "/" in it; among
 *            equal paths one with `methods`. GET stands for HEAD too. Paths are inside the application:
 *            without its route_prefix, percent-decoded.
 * Ownership: rs_app_policy_free releases everything; it does not change once it is made.
 * Thread:    plain data; may be read by many at a time.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    RS_PRIORITY_MAX = 9, /* the most urgent */
    RS_PRIORITY_DEFAULT = 5,
    RS_RATE_PER_S_MAX = 100000,
    RS_RATE_BURST_MAX = 100000,
    RS_POLICY_ROUTES_MAX = 1000,
};

enum rs_rate_key {
    RS_RATE_CLIENT, /* a bucket for each client address */
    RS_RATE_HEADER, /* for each value of a header; requests without it share one */
    RS_RATE_ALL,    /* one bucket */
};

struct rs_rate_limit {
    double requests_per_s; /* > 0 */
    unsigned burst;        /* >= 1: what may come at once after a pause */
    enum rs_rate_key key;
    char *header; /* lower case; NULL unless key is RS_RATE_HEADER */
    char *route;  /* "": the application's own; "GET,POST /v1" */
};

struct rs_route_policy {
    char *path; /* "/" or "/prefix" */
    size_t path_len;
    char **methods; /* ends with NULL; NULL: all */

    uint64_t max_body;       /* bytes; UINT64_MAX: not limited here */
    int64_t request_timeout; /* ns; 0: none; -1: as http_options says */
    int limit;               /* place in limits; -1: none */
    uint8_t priority;        /* 0 to RS_PRIORITY_MAX */
    uint8_t max_priority;    /* that a client may ask for, if it is above priority */
    bool idempotent;
};

struct rs_app_policy {
    struct rs_route_policy *routes; /* the first match counts; the last is the application's own */
    size_t n_routes;                /* >= 1 */
    struct rs_rate_limit *limits;   /* routes without one of their own share the application's */
    size_t n_limits;
};

/* Of requests to an application that asks for nothing. */
extern const struct rs_route_policy rs_route_policy_default;

RS_MUST_CHECK int rs_app_policy_new(struct rs_app_policy **ret, const json_t *j,
                                    struct rs_error *err);
void rs_app_policy_free(struct rs_app_policy *p); /* NULL is fine */
RS_DEFINE_AUTO(struct rs_app_policy *, rs_app_policy_free);

/* `path` is inside the application and decoded; "" counts as "/". Never NULL. */
const struct rs_route_policy *rs_app_policy_find(const struct rs_app_policy *p, const char *path,
                                                 size_t len, const char *method);

/* "client", "all" or "header:NAME"; *name is where NAME begins, or NULL. -1: something else. */
int rs_rate_key_parse(const char *text, const char **name);
