/* Is an HTTP server ready? GET a path until it answers with 200 to 399, or only connect.
 *
 * Units:     deadline is monotonic ns.
 * Tries:     one after the other, each for at most 2 s, with a pause of 20 ms that grows to 250 ms; a
 *            probe that is for `once` gives its only try all the time there is.
 * Thread:    the loop's. `fn` is called once, later, never from inside rs_probe_start; it may free the
 *            probe.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/loop/loop.h"

struct rs_probe;

struct rs_probe_conf {
    const char *host; /* and port, or */
    uint16_t port;
    const char *unix_path;
    const char *path; /* "/health"; NULL: it is enough that it accepts a connection */
    int64_t deadline;
    bool once;
};

/* `why` is one line; "" when `ok`. */
RS_MUST_CHECK int rs_probe_start(struct rs_probe **ret, struct rs_loop *loop,
                                 const struct rs_probe_conf *conf,
                                 void (*fn)(bool ok, const char *why, void *arg), void *arg,
                                 struct rs_error *err);
void rs_probe_free(struct rs_probe *p); /* stops it; NULL is fine */
RS_DEFINE_AUTO(struct rs_probe *, rs_probe_free);
