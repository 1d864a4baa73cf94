/* Readiness probes of HTTP replicas, one per replica at a time.
 *
 * Thread: the control thread.
 */
#pragma once

#include "core/base/map.h"
#include "core/loop/loop.h"
#include "net/http/probe.h"

struct rs_probes {
    struct rs_loop *loop;
    /* How one ended; another may be started from inside. Not called from rs_probes_start. */
    void (*on_probed)(const char *replica_id, bool ok, const char *why, void *arg);
    void *arg;
    struct rs_map by_replica; /* its own */
};

/* In place of the one under way, if there is any. */
void rs_probes_start(struct rs_probes *all, const char *replica_id,
                     const struct rs_probe_conf *conf);
void rs_probes_fini(struct rs_probes *all); /* forgets those under way */
