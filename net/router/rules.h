/* What an application asks of the ingress, shared by the lanes, with the buckets of its rate limits.
 *
 * Thread:    counted atomically; rs_rules_take may be called by any thread at any time: the buckets of a
 *            limit lie in shards with a lock each, so that a limit is exact on the node, whichever lane
 *            a request comes in on.
 * Life:      a change of the configuration makes new rules; limits that stay as they were keep their
 *            buckets.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/model/policy.h"

#include <stdatomic.h>

struct rs_limiter;

struct rs_rules {
    atomic_uint refs;
    struct rs_app_policy *policy;
    struct rs_limiter **limiters; /* one for each of policy->limits */
};

/* NULL where `policy` (may be NULL) asks for nothing, or cannot be read: `app` is for the log. `old`: the
 * application's rules until now, or NULL. */
struct rs_rules *rs_rules_new(const char *app, const json_t *policy, const struct rs_rules *old);
struct rs_rules *rs_rules_ref(struct rs_rules *r); /* NULL is fine */
void rs_rules_unref(struct rs_rules *r);           /* NULL is fine */
RS_DEFINE_AUTO(struct rs_rules *, rs_rules_unref);

/* A request on a route with a limit (p->limit >= 0); `who` is what its key is about. 0: admitted;
 * otherwise how many nanoseconds to wait. */
int64_t rs_rules_take(struct rs_rules *r, const struct rs_route_policy *p, const void *who,
                      size_t len, int64_t now);
